"""What must survive a kill -9, as values.

Rules return these changes, `store.py` writes them. All changes of one `save` are one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct, field

from heliosd.raft.storage import HardState, LogSuffix, MemberForgotten, MemberState, SnapshotSaved


class RecordAdded(Struct, frozen=True):
    """One row of a bounded history (`uptime_event`, `uptime_session`, `snapshot_event`, `snapshot`).

    `key` orders the rows of a `kind`; a row with an existing key replaces it. `body` is JSON. Only the newest
    `keep` rows by key remain.
    """

    kind: str
    key: int
    body: bytes
    keep: int


class RecordsCleared(Struct, frozen=True):
    """All rows of one kind are deleted."""

    kind: str


class ValueSet(Struct, frozen=True):
    """One named value (totals, the first start's membership, …) as JSON; None removes it."""

    name: str
    body: bytes | None


class TokenRevoked(Struct, frozen=True):
    """The token with this `jti`, which ends at `expires_at` (Unix seconds), is revoked.

    With the `jti` "" all that end by then are; it takes the place of those that were stored one by one.
    """

    jti: str
    expires_at: float


class LoggedEvent(Struct, frozen=True):
    """One event of the event log: its number, its time (Unix seconds), its type and its bytes on the wire."""

    seq: int
    at: float
    type: str
    payload: bytes


class EventsLogged(Struct, frozen=True):
    """These events are appended to the event log."""

    events: tuple[LoggedEvent, ...]


class EventsTrimmed(Struct, frozen=True):
    """Events with numbers below `before_seq` are deleted."""

    before_seq: int


class EventsCleared(Struct, frozen=True):
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


class Saved(Struct, frozen=True, kw_only=True):
    """Everything that is stored, as a start reads it."""

    members: dict[str, MemberState] = field(default_factory=dict)
    records: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Per kind, the bodies in the order of their keys, oldest first."""
    values: dict[str, bytes] = field(default_factory=dict)
    revoked: dict[str, float] = field(default_factory=dict)
    """`jti` -> expiry in Unix seconds, as in `TokenRevoked`. `auth.access.Access` keeps it up to date."""
    events: tuple[LoggedEvent, ...] = ()
    """The event log, in the order of its numbers, without a hole."""


class Save(Protocol):
    """Stores changes, all or none; returns once they are on disk. Raises `StoreFull` if they are not stored."""

    async def __call__(self, changes: Sequence[Change]) -> None: ...
