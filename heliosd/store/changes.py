"""What must survive a kill -9, as values.

Rules return these changes, `store.py` writes them. All changes of one `save` are one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from heliosd.errors import StoreFull
from heliosd.raft.storage import HardState, LogSuffix, MemberForgotten, MemberState, SnapshotSaved


@dataclass(frozen=True, slots=True)
class RecordAdded:
    """One row of a bounded history (`uptime_event`, `uptime_session`, `snapshot_event`, `snapshot`).

    `key` orders the rows of a `kind`; a row with an existing key replaces it. `body` is JSON. Only the newest
    `keep` rows by key remain.
    """

    kind: str
    key: int
    body: bytes
    keep: int


@dataclass(frozen=True, slots=True)
class RecordsCleared:
    """All rows of one kind are deleted."""

    kind: str


@dataclass(frozen=True, slots=True)
class ValueSet:
    """One named value (totals, the first start's membership, …) as JSON; None removes it."""

    name: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """The token with this `jti`, which ends at `expires_at` (Unix seconds), is revoked.

    With the `jti` "" all that end by then are; it takes the place of those that were stored one by one.
    """

    jti: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of the event log: its number, its time (Unix seconds), its type and its bytes on the wire."""

    seq: int
    at: float
    type: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class EventsLogged:
    """These events are appended to the event log."""

    events: tuple[LoggedEvent, ...]


@dataclass(frozen=True, slots=True)
class EventsTrimmed:
    """Events with numbers below `before_seq` are deleted."""

    before_seq: int


@dataclass(frozen=True, slots=True)
class EventsCleared:
    """The event log is empty."""


Change = (
    HardState
    | LogSuffix
    | SnapshotSaved
    | MemberForgotten
    | RecordAdded
    | RecordsCleared
    | ValueSet
    | TokenRevoked
    | EventsLogged
    | EventsTrimmed
    | EventsCleared
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Everything that is stored, as a start reads it."""

    members: dict[str, MemberState] = field(default_factory=dict)
    records: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Per kind, the bodies in the order of their keys, oldest first."""
    values: dict[str, bytes] = field(default_factory=dict)
    revoked: dict[str, float] = field(default_factory=dict)
    """`jti` -> expiry in Unix seconds."""
    events: tuple[LoggedEvent, ...] = ()
    """The event log, in the order of its numbers, without a hole."""


class Save(Protocol):
    """Stores changes, all or none; returns once they are on disk. Raises `StoreFull` if they are not stored."""

    async def __call__(self, changes: Sequence[Change]) -> None: ...


class DeferredChanges:
    """Changes that may wait until the disk takes them: stored in the order in which they were added."""

    def __init__(self, save: Save) -> None:
        self._save = save
        self._waiting: list[Change] = []

    def __bool__(self) -> bool:
        """Whether any wait."""
        return bool(self._waiting)

    def add(self, changes: Sequence[Change]) -> None:
        """Store these with the next `store`."""
        self._waiting += changes

    async def store(self, *, first: Sequence[Change] = ()) -> None:
        """Store `first` and all that waits, all or none.

        Raises `StoreFull`; then what waited goes on waiting, and `first` does not.
        """
        waiting, self._waiting = self._waiting, []
        try:
            await self._save([*first, *waiting])
        except StoreFull:
            self._waiting = waiting + self._waiting
            raise
