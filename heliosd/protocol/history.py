"""The numbers of events, and the newest events that are kept for a replay.

The epoch names the numbering that a seq belongs to; within an epoch, seq counts from 1 without a hole.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
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


class HistoryPage(Struct, frozen=True):
    """Some of the kept events, oldest first; `more`: further events of the query are kept."""

    events: tuple[OutgoingMessage, ...]
    more: bool


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
        self._events: deque[OutgoingMessage] = deque(kept, maxlen=max_events)
        if self._events and self._events[-1].seq != seq:
            raise ValueError("the kept events do not end with the newest number")

    @property
    def oldest_seq(self) -> int:
        """The oldest kept number; if none is kept, the number of the next event."""
        return self.seq - len(self._events) + 1

    def oldest_after(self, coming: int) -> int:
        """The oldest number that will be kept after `coming` more events."""
        assert self._events.maxlen is not None
        return max(self.oldest_seq, self.seq + coming - self._events.maxlen + 1)

    def keep(self, event: OutgoingMessage, now: float) -> None:
        """Append `event`, at `now` in Unix seconds. Raises ValueError if it has not the next number."""
        if event.seq != self.seq + 1:
            raise ValueError(f"event {event.seq} does not follow {self.seq}")
        self.seq += 1
        self._events.append(event)
        self.expire(now)

    def expire(self, now: float) -> None:
        """Drop the events that are older than `max_age`."""
        while self._events and self._events[0].at < now - self._max_age:
            self._events.popleft()

    def restart(self, epoch: str) -> None:
        """Begin a new, empty numbering."""
        self.epoch = epoch
        self.seq = 0
        self._events.clear()

    def kept(self) -> tuple[OutgoingMessage, ...]:
        """All kept events, oldest first."""
        return tuple(self._events)

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
        # Counted from the end, where most cursors are: a deque is fast at its ends.
        for back in range(min(self.seq - after, len(self._events)), 0, -1):
            yield self._events[-back]

    def page(self, after: int, limit: int, subscription: Subscription) -> HistoryPage:
        """At most `limit` events beyond `after` that `subscription` lets through, and at most 1 MiB of them, but at
        least one if there is one."""
        events: list[OutgoingMessage] = []
        size = 0
        for event in self.after(after):
            mine = event.filtered_for(subscription)
            if mine is None:
                continue
            size += len(mine.payload)
            if len(events) == limit or (events and size > MAX_REPLAY_BYTES):
                return HistoryPage(tuple(events), more=True)
            events.append(mine)
        return HistoryPage(tuple(events), more=False)

    def since(self, cursor: Cursor, subscription: Subscription) -> Replay:
        """All events beyond `cursor` that `subscription` lets through, or why not."""
        if cursor.after is None:
            return Replay()
        refusal = self.reason_to_refuse(cursor.epoch, cursor.after)
        if refusal is not None:
            return Replay(refusal=refusal)
        events: list[OutgoingMessage] = []
        size = 0
        for event in self.after(cursor.after):
            mine = event.filtered_for(subscription)
            if mine is None:
                continue
            events.append(mine)
            size += len(mine.payload)
            if len(events) > MAX_REPLAY_EVENTS or size > MAX_REPLAY_BYTES:
                return Replay(refusal="too_many")
        return Replay(tuple(events))
