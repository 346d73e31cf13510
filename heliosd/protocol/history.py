"""The numbers of events, and the newest events that are kept for a replay.

The epoch names the numbering that a seq belongs to; within an epoch, seq counts from 1 without a hole.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

from msgspec import Struct

from .message import OutgoingMessage
from .subscription import Subscription

EPOCH_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What an epoch may look like on the wire; opaque to clients."""

MAX_SEQ = 2**53 - 1
"""The largest whole number that every JSON reader represents exactly."""

MAX_REPLAY_EVENTS = 1000
MAX_REPLAY_BYTES = 1024 * 1024

Refusal = Literal["epoch_changed", "too_old", "too_many", "ahead"]


class Cursor(Struct, frozen=True):
    """The last number of an epoch that a client has. `after` None: it wants no replay, only the `welcome`."""

    epoch: str = ""
    after: int | None = None


class Replay(Struct, frozen=True):
    """The events that a client missed, filtered for its subscription; or why they cannot be replayed."""

    events: tuple[OutgoingMessage, ...] = ()
    refusal: Refusal | None = None


class Excerpt:
    """Events beyond a number that a subscription lets through, oldest first: at most `limit` of them and 1 MiB, but
    one if there is one. It is read a little at a time, since it may take looking at millions."""

    def __init__(self, after: int, limit: int, subscription: Subscription) -> None:
        self.looked_at = after
        """It has looked at all events up to this number."""
        self.events: list[OutgoingMessage] = []
        self.size = 0
        """Bytes of the events."""
        self.more = False
        """There is a further one that the subscription lets through."""
        self._limit = limit
        self._subscription = subscription

    def read(self, history: History, at_most: int | None = None) -> bool:
        """Look at so many events more, of which `history` must have the first. Returns whether any are left."""
        for event in islice(history.after(self.looked_at), at_most):
            mine = event.filtered_for(self._subscription)
            if mine is not None:
                size = self.size + len(mine.payload)
                if len(self.events) == self._limit or (self.events and size > MAX_REPLAY_BYTES):
                    self.more = True
                    return False
                self.events.append(mine)
                self.size = size
            self.looked_at += 1
        return self.looked_at < history.seq


class History:
    """The newest events of one epoch: at most `max_events`, none older than `max_age` seconds."""

    def __init__(
        self,
        epoch: str,
        max_events: int,
        max_age: float,
        *,
        seq: int = 0,
        kept: Iterable[OutgoingMessage] = (),
    ) -> None:
        if not EPOCH_PATTERN.fullmatch(epoch):
            raise ValueError(f"not an epoch: {epoch!r}")
        self.epoch = epoch
        self.seq = seq
        """The newest event's number; 0 before the first event."""
        self._max_age = max_age
        self._max_events = max_events
        newest = deque(kept, maxlen=max_events)
        if newest and newest[-1].seq != seq:
            raise ValueError("the kept events do not end with the newest number")
        # By number, since readers go on in the middle, where a deque is slow.
        self._events = dict(enumerate(newest, seq - len(newest) + 1))

    @property
    def oldest_seq(self) -> int:
        """The oldest kept number; if none is kept, the number of the next event."""
        return self.seq - len(self._events) + 1

    def oldest_after(self, coming: int) -> int:
        """The oldest number that will be kept after `coming` more events."""
        return max(self.oldest_seq, self.seq + coming - self._max_events + 1)

    def keep(self, event: OutgoingMessage, now: float) -> None:
        """Append `event`, at `now` in Unix seconds. Raises ValueError if it has not the next number."""
        if event.seq != self.seq + 1:
            raise ValueError(f"event {event.seq} does not follow {self.seq}")
        self.seq += 1
        self._events[self.seq] = event
        if len(self._events) > self._max_events:
            del self._events[self.oldest_seq]
        self.expire(now)

    def expire(self, now: float) -> None:
        """Drop the events that are older than `max_age`."""
        while self._events and self._events[self.oldest_seq].at < now - self._max_age:
            del self._events[self.oldest_seq]

    def restart(self, epoch: str) -> None:
        """Begin a new, empty numbering."""
        self.epoch = epoch
        self.seq = 0
        self._events.clear()

    def kept(self) -> tuple[OutgoingMessage, ...]:
        """All kept events, oldest first."""
        return tuple(self._events.values())

    def reason_to_refuse(self, epoch: str, after: int) -> Refusal | None:
        """Why the events after `after` cannot all be replayed; None if they can."""
        if epoch != self.epoch:
            return "epoch_changed"
        if after > self.seq:
            return "ahead"
        if after < self.oldest_seq - 1:
            return "too_old"
        return None

    def after(self, after: int) -> Iterator[OutgoingMessage]:
        """The kept events beyond `after`, oldest first."""
        for seq in range(max(after + 1, self.oldest_seq), self.seq + 1):
            yield self._events[seq]

    def since(self, cursor: Cursor, subscription: Subscription, excerpt: Excerpt | None = None) -> Replay:
        """All events beyond `cursor` that `subscription` lets through, or why not. Those of `excerpt`, which was
        begun by `missed` with the same cursor, need not be kept any more."""
        if cursor.after is None:
            return Replay()
        if excerpt is None:
            excerpt = missed(cursor.after, subscription)
        refusal = self.reason_to_refuse(cursor.epoch, excerpt.looked_at)
        if refusal is not None:
            return Replay(refusal=refusal)
        if not excerpt.more:
            excerpt.read(self)
        if excerpt.more or excerpt.size > MAX_REPLAY_BYTES:
            return Replay(refusal=self.reason_to_refuse(cursor.epoch, cursor.after) or "too_many")
        return Replay(tuple(excerpt.events))


def missed(after: int, subscription: Subscription) -> Excerpt:
    """What a client with this cursor is to be sent again, not read yet."""
    return Excerpt(after, MAX_REPLAY_EVENTS, subscription)
