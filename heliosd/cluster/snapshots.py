"""Which snapshots this node made, received and restored, and how long that took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from ..clock import Instant
from ..durable import Change, Saved


class SnapshotEvent(Struct, frozen=True, kw_only=True):
    """An entry of the history's `events`."""

    timestamp: str
    type: Literal["created", "received", "restored", "deleted", "error"]
    snapshot_id: str
    index: int
    term: int
    size: int
    duration_ms: float
    success: bool
    error_message: str | UnsetType = UNSET
    from_peer: str | UnsetType = UNSET
    entries_compacted: int | UnsetType = UNSET


class SnapshotRecord(Struct, frozen=True, kw_only=True):
    """An entry of the history's `snapshots`."""

    id: str
    index: int
    term: int
    size: int
    created_at: str
    creation_duration: int
    node_id: str
    leader_id: str
    is_from_peer: bool
    peer_count: int
    entries_compacted: int
    previous_index: int
    version: int = 1


class SnapshotReport(Struct, frozen=True, kw_only=True):
    """`GET …/snapshot`."""

    has_snapshot: bool
    latest_snapshot_id: str
    latest_snapshot_index: int
    latest_snapshot_term: int
    latest_snapshot_size: int
    latest_snapshot_time: str | None
    latest_snapshot_age_ms: int
    latest_snapshot_age: str
    total_snapshots: int
    total_snapshots_created: int
    total_snapshots_received: int
    total_restores: int
    failed_creations: int
    failed_restores: int
    total_bytes_written: int
    total_entries_compacted: int
    avg_snapshot_size: int
    largest_snapshot_size: int
    avg_creation_time_ms: float
    max_creation_time_ms: float
    last_creation_time_ms: float
    avg_restore_time_ms: float
    last_restore_time_ms: float
    snapshot_interval_ms: int
    snapshot_interval: str
    snapshot_threshold: int
    retention_count: int
    time_since_last_snapshot_ms: int
    time_since_last_snapshot: str
    snapshots_on_disk: int


class SnapshotHistory(Struct, frozen=True, kw_only=True):
    """`GET …/snapshot/history`, newest first."""

    node_id: str
    events: tuple[SnapshotEvent, ...]
    snapshots: tuple[SnapshotRecord, ...]
    total_events: int
    total_snapshots: int


@dataclass(frozen=True, slots=True)
class SnapshotOutcome:
    """What one operation leaves: the event to tell, the snapshot if one came to be, and what to store."""

    event: SnapshotEvent
    record: SnapshotRecord | None
    changes: list[Change]


class SnapshotTracker:
    def __init__(self, node_id: str, saved: Saved, *, interval: float, threshold: int) -> None:
        raise NotImplementedError

    @property
    def latest(self) -> SnapshotRecord | None:
        raise NotImplementedError

    def created(
        self,
        *,
        index: int,
        term: int,
        size: int,
        duration: float,
        entries_compacted: int,
        leader_id: str,
        peer_count: int,
        previous_index: int,
        now: Instant,
    ) -> SnapshotOutcome:
        raise NotImplementedError

    def received(
        self,
        *,
        index: int,
        term: int,
        size: int,
        duration: float,
        from_peer: str,
        leader_id: str,
        peer_count: int,
        now: Instant,
    ) -> SnapshotOutcome:
        raise NotImplementedError

    def restored(self, *, index: int, term: int, size: int, duration: float, now: Instant) -> SnapshotOutcome:
        raise NotImplementedError

    def failed(self, *, kind: Literal["created", "restored"], message: str, now: Instant) -> SnapshotOutcome:
        raise NotImplementedError

    def report(self, now: Instant) -> SnapshotReport:
        raise NotImplementedError

    def history(self, events: int = 100, snapshots: int = 10) -> SnapshotHistory:
        raise NotImplementedError

    def reset(self) -> list[Change]:
        raise NotImplementedError
