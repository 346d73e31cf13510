"""The hub's event log: the epoch, the newest number that was sent, and the events that can be sent again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

import trio

from heliosd.protocol.history import Cursor, Excerpt, History, missed
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.subscription import Subscription

from .time_slice import TimeSlice

READ_AT_ONCE = 16
"""Events that are looked at between two checks whether the time slice is over."""


def new_epoch() -> str:
    """An epoch that nothing else has."""
    return secrets.token_urlsafe(12)


class EventLog:
    """The hub adds the events. The numbering stage gives the numbers, begins the log, and sets `trouble`."""

    def __init__(
        self,
        *,
        max_events: int,
        max_age: float,
        patience_seconds: float = 0.0,
        first_epoch: Callable[[], str] = new_epoch,
    ) -> None:
        self._max_events = max_events
        self._max_age = max_age
        self._patience_seconds = patience_seconds
        self._begun = trio.Event()
        self._grown: trio.Event | None = None
        """Set with the next event, if anybody waits for one."""
        self.history = History(first_epoch(), max_events, max_age)
        """Another object after each `begin` and `skip`."""
        self.trouble: str | None = None
        """Why events are not on disk; None: they are. Set by the numbering stage."""

    @property
    def readable(self) -> bool:
        """Whether the numbering is known. Before that no cursor can be judged, and the epoch is one of this
        daemon's own."""
        return self._begun.is_set()

    async def wait_readable(self) -> None:
        """Return once it is `readable`."""
        await self._begun.wait()

    def begin(self, epoch: str, seq: int = 0, kept: Iterable[OutgoingMessage] = ()) -> None:
        """Take up a numbering. `kept` must end with `seq` (or be empty), else ValueError."""
        self.history = History(epoch, self._max_events, self._max_age, seq=seq, kept=kept)
        self._begun.set()
        self._report_growth()

    def keep(self, event: OutgoingMessage, wall: float) -> None:
        """An event is being sent at `wall` (Unix seconds)."""
        self.history.keep(event, wall)
        self._report_growth()

    def skip(self, last: int) -> None:
        """No event up to `last` can be sent any more; the next one bears `last + 1`."""
        self.history = History(self.history.epoch, self._max_events, self._max_age, seq=last)
        self._report_growth()

    def behind(self, cursor: Cursor | None) -> bool:
        """Whether `cursor` may be ahead of the history only because another daemon of the cluster has sent more
        than this one: `reach` it first. Always False where this daemon gives the numbers itself."""
        if cursor is None or cursor.after is None or not self._patience_seconds:
            return False
        return cursor.epoch == self.history.epoch and cursor.after > self.history.seq

    async def missed(self, cursor: Cursor | None, subscription: Subscription) -> Excerpt | None:
        """What a client is to be sent again when it joins, as far as it is known by now; the rest `History.since`
        adds at that moment. Waits as `reach`. None: nothing."""
        if cursor is None or cursor.after is None:
            return None
        if self.behind(cursor):
            await self.reach(cursor)
        excerpt = missed(cursor.after, subscription)
        await self.read(excerpt, cursor.epoch)
        return excerpt

    async def read(self, excerpt: Excerpt, epoch: str) -> None:
        """Let it look at all events of `epoch` that are kept, with pauses. Some may go before it has: then
        `History.reason_to_refuse` says why it has not looked at all."""
        time_slice = TimeSlice()
        while self.history.reason_to_refuse(epoch, excerpt.looked_at) is None:
            if not excerpt.read(self.history, READ_AT_ONCE):
                return
            if time_slice.over:
                await time_slice.pause()

    async def reach(self, cursor: Cursor) -> None:
        """Wait until the events up to `cursor` have been sent here, a few seconds at most."""
        with trio.move_on_after(self._patience_seconds):
            while self.behind(cursor):
                if self._grown is None:
                    self._grown = trio.Event()
                await self._grown.wait()

    def _report_growth(self) -> None:
        if self._grown is not None:
            self._grown.set()
            self._grown = None
