"""The event log of a whole cluster, as one of its daemons tells it.

The numbers come from the cluster, which keeps the events as well: here they are only held for those who come
back. So a client that was cut from one daemon resumes on any other. Nothing is stored on this daemon's disk.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from math import inf

import trio

from heliosd.protocol import server_messages
from heliosd.protocol.events import Event, LogReset
from heliosd.protocol.history import Cursor, History
from heliosd.protocol.message import OutgoingMessage, replayed
from heliosd.store.changes import Change, LoggedEvent

PATIENCE_SECONDS = 3.0
"""How long one who comes back waits for events that another daemon has told already, and this one has not."""
LOOK_SECONDS = 0.01


class ClusterLog:
    """Implements `hub.log.Log`. Until the cluster's log has been read it is not `readable`, and its epoch is one
    that nobody knows: who would come back in that time is never told that nothing was lost."""

    trouble: str | None = None
    """Always None: what is told with a number is in the cluster's log already."""
    retry_at = inf

    def __init__(self, *, max_events: int, max_age: float) -> None:
        self._max_events = max_events
        self._max_age = max_age
        self.history = History(secrets.token_urlsafe(12), max_events, max_age)
        self.begun = trio.Event()
        """Set once the cluster's log has been read for the first time."""

    @property
    def readable(self) -> bool:
        return self.begun.is_set()

    def behind(self, cursor: Cursor | None) -> bool:
        if cursor is None or cursor.after is None:
            return False
        return cursor.epoch == self.history.epoch and cursor.after > self.history.seq

    async def reach(self, cursor: Cursor) -> None:
        with trio.move_on_after(PATIENCE_SECONDS):
            while self.behind(cursor):  # noqa: ASYNC110 (the history tells nobody that it grows)
                await trio.sleep(LOOK_SECONDS)

    async def open(self, now_mono: float) -> None:
        del now_mono
        await trio.lowlevel.checkpoint()

    async def commit(
        self, events: Sequence[tuple[Event, tuple[Change, ...]]], wall: float, now_mono: float
    ) -> list[OutgoingMessage]:
        """What did not come through the cluster's log has no number: it is told as provisional."""
        del now_mono
        await trio.lowlevel.checkpoint()
        return [server_messages.of_provisional(event, wall) for event, _ in events]

    async def retry(self, now_mono: float) -> bool:
        del now_mono
        await trio.lowlevel.checkpoint()
        return True

    def renumber(self, to: LogReset) -> list[LoggedEvent]:
        """Hold what `to` says from now on; returns the events that are still to be told live.

        With the same epoch a hole was torn into it: those who listen have everything before it and get what
        comes after it. With another epoch they start from the status.
        """
        self.begun.set()
        history = self.history
        if to.epoch != history.epoch:
            self.history = self._held(to.epoch, to.seq, to.kept)
            return []
        if to.lost is not None:
            self.history = self._held(to.epoch, to.lost[1], ())
        return [event for event in to.kept if event.seq > self.history.seq]

    def _held(self, epoch: str, seq: int, kept: Sequence[LoggedEvent]) -> History:
        outgoing = [message_of(event) for event in kept]
        return History(epoch, self._max_events, self._max_age, seq=seq, kept=outgoing)


def message_of(event: LoggedEvent) -> OutgoingMessage:
    """The event as every daemon of the cluster tells it: the same bytes."""
    return replayed(seq=event.seq, at=event.at, name=event.type, payload=event.payload)
