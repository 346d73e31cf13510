"""What a member must have on disk before it answers (paper, figure 2 "persistent state", figure 13)."""

from __future__ import annotations

import msgspec

from heliosd.raft.messages import Entry, Snapshot


class HardState(msgspec.Struct, frozen=True, gc=False):
    """A member's term, and its vote in that term ("" = none)."""

    member: str
    term: int
    vote: str


class LogSuffix(msgspec.Struct, frozen=True, gc=False):
    """From `entries[0].index` on, a member's log is exactly `entries`; earlier entries there are gone."""

    member: str
    entries: tuple[Entry, ...]


class SnapshotSaved(msgspec.Struct, frozen=True, gc=False):
    """A member's snapshot. It replaces an older one, and the log up to `snapshot.index` is gone.

    Where `keeps_log` is false the rest of the log is gone too (figure 13, InstallSnapshot step 7).
    """

    member: str
    snapshot: Snapshot
    keeps_log: bool = True


class MemberForgotten(msgspec.Struct, frozen=True, gc=False):
    """Everything that is stored of this simulated member is deleted."""

    member: str


class MemberState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one member finds on its disk when it starts."""

    term: int = 0
    vote: str = ""
    snapshot: Snapshot = msgspec.field(default_factory=Snapshot)
    log: tuple[Entry, ...] = ()
    """Contiguous, from `snapshot.index + 1` on."""
