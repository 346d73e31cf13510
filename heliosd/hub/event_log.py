"""The hub's event log, whoever numbers the events: this daemon itself (`event_log.py`), or the cluster for all
its daemons alike (`shared_log.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from heliosd.protocol.events import Event
from heliosd.protocol.history import Cursor, History
from heliosd.protocol.message import OutgoingMessage
from heliosd.store.changes import Change


class EventLog(Protocol):
    """What the hub needs of it. Seconds are monotonic, `wall` is Unix time."""

    @property
    def history(self) -> History:
        """What can be told again. May be another object after each `await`, and after a renumbering."""
        ...

    @property
    def readable(self) -> bool:
        """Whether it is known what has happened. Before that no cursor can be judged, and the history is empty
        without saying anything."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why events are not on disk; None: they are."""
        ...

    @property
    def retry_at(self) -> float:
        """While there is trouble: when to call `retry`."""
        ...

    def behind(self, cursor: Cursor | None) -> bool:
        """Whether `cursor` may be ahead of `history` only because this daemon has not heard yet what another one
        has told already: `reach` it first."""
        ...

    async def reach(self, cursor: Cursor) -> None:
        """Wait, for a moment at most, until the events up to `cursor` have been told here."""
        ...

    async def open(self, now_mono: float) -> None:
        """Begin; called once, before all else."""
        ...

    async def commit(
        self, events: Sequence[tuple[Event, tuple[Change, ...]]], wall: float, now_mono: float
    ) -> list[OutgoingMessage]:
        """The messages that tell events which happened here, in order."""
        ...

    async def retry(self, now_mono: float) -> bool:
        """Try to end the trouble. Whether it has ended."""
        ...
