"""What must survive a kill -9, as values.

Rules return these changes, `store.py` writes them. All changes of one `save` are one transaction: after a crash
either all of them are there or none is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from heliosd.raft.messages import Entry, Snapshot


@dataclass(frozen=True, slots=True)
class HardState:
    """A member's term and the vote it gave in that term ("" = none); figure 2, "persistent state"."""

    member: str
    term: int
    vote: str


@dataclass(frozen=True, slots=True)
class LogSuffix:
    """From `entries[0].index` on, a member's log is exactly `entries`: what stood there and after is gone."""

    member: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class SnapshotSaved:
    """A member's snapshot. It replaces an older one, and the log up to `snapshot.index` is gone.

    Where `keeps_log` is false the rest of the log is gone too (figure 13, InstallSnapshot step 7).
    """

    member: str
    snapshot: Snapshot
    keeps_log: bool = True


@dataclass(frozen=True, slots=True)
class MemberForgotten:
    """Everything stored for this simulated member is gone."""

    member: str


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
    """A whole history of one kind is gone."""

    kind: str


@dataclass(frozen=True, slots=True)
class ValueSet:
    """One named value (totals, the first start's membership, …) as JSON; None removes it."""

    name: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """The token with this `jti` no longer holds; forgotten once `expires_at` (Unix seconds) has passed."""

    jti: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of the event log: its number, when (Unix seconds), its type on the wire, and the very bytes
    that clients got."""

    seq: int
    at: float
    type: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class EventsLogged:
    """These events stand at the end of the event log."""

    events: tuple[LoggedEvent, ...]


@dataclass(frozen=True, slots=True)
class EventsTrimmed:
    """Events with numbers below `before_seq` are gone."""

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
class MemberState:
    """What one simulated member finds on its disk when it starts."""

    term: int = 0
    vote: str = ""
    snapshot: Snapshot = field(default_factory=Snapshot)
    log: tuple[Entry, ...] = ()
    """Contiguous, from `snapshot.index + 1` on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Everything that a start finds in the store."""

    members: dict[str, MemberState] = field(default_factory=dict)
    records: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Per kind, the bodies in the order of their keys, oldest first."""
    values: dict[str, bytes] = field(default_factory=dict)
    revoked: dict[str, float] = field(default_factory=dict)
    """`jti` -> expiry in Unix seconds."""
    events: tuple[LoggedEvent, ...] = ()
    """The event log, in the order of its numbers, without a hole."""


class Save(Protocol):
    """Makes changes durable: returns once they are on disk, all or none.

    Raises `StoreFull` if they are not; calls that wait together may share one transaction.
    """

    async def __call__(self, changes: Sequence[Change]) -> None: ...
