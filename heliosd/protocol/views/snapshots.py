"""The JSON shapes of snapshots: `GET …/snapshot` and `GET …/snapshot/history`."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class SnapshotEvent(Struct, frozen=True, kw_only=True):
    """An entry of the history's `events`. In an `error` the id is "" and the numbers are 0."""

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
    """`TERM-INDEX` of the last entry that it covers."""
    index: int
    term: int
    size: int
    created_at: str
    creation_duration: int
    """Nanoseconds (a Go duration); for a received snapshot the duration of its transfer."""
    node_id: str
    leader_id: str
    is_from_peer: bool
    peer_count: int
    entries_compacted: int
    previous_index: int
    """Of the snapshot before; 0 for the first."""
    version: int = 1


class SnapshotReport(Struct, frozen=True, kw_only=True):
    """`GET …/snapshot`. Without a snapshot its time is null, its id "", and its numbers are 0.

    Averages are over all snapshots and restores since the last reset of the counters.
    """

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
    """`GET …/snapshot/history`, newest first. The totals count trimmed entries too."""

    node_id: str
    events: tuple[SnapshotEvent, ...]
    snapshots: tuple[SnapshotRecord, ...]
    total_events: int
    total_snapshots: int
