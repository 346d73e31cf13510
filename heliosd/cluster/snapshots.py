"""The snapshots that this node created, received and restored, with durations and sizes.

The simulated cluster's store keeps the newest snapshot of each member. With etcd, the newest few files are kept
beside the store. A snapshot that a newer one removes gives a `deleted` event in the history.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from itertools import islice
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from heliosd.clock import Instant, duration_text, rfc3339
from heliosd.histogram import Histogram
from heliosd.protocol.views.snapshots import SnapshotEvent, SnapshotHistory, SnapshotRecord, SnapshotReport
from heliosd.store.changes import Change, RecordAdded, RecordsCleared, Saved, ValueSet

EVENT_KIND = "snapshot_event"
EVENTS_KEPT = 1_000
SNAPSHOT_KIND = "snapshot"
SNAPSHOTS_KEPT = 100
TOTALS = "snapshot_totals"
DURATION_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds; Helios' buckets."""


class SnapshotOutcome(Struct, frozen=True):
    """Result of one operation: the event to emit, the snapshot if there is one, and what to store."""

    event: SnapshotEvent
    record: SnapshotRecord | None
    changes: list[Change]


class _Totals(Struct, kw_only=True):
    """Since the first start or the last reset, also of what the histories have trimmed."""

    events: int = 0
    created: int = 0
    received: int = 0
    restores: int = 0
    failed_creations: int = 0
    failed_restores: int = 0
    bytes_written: int = 0
    entries_compacted: int = 0
    largest: int = 0
    creation_seconds: float = 0.0
    longest_creation: float = 0.0
    last_creation: float = 0.0
    restore_seconds: float = 0.0
    last_restore: float = 0.0
    kept: tuple[SnapshotRecord, ...] = ()
    """Those on disk, the newest last; a reset keeps them."""
    latest_at: float = 0.0
    """Unix seconds."""

    @property
    def latest(self) -> SnapshotRecord | None:
        return self.kept[-1] if self.kept else None

    @property
    def snapshots(self) -> int:
        return self.created + self.received


class SnapshotTracker:
    """The snapshots of one node. `interval` (seconds), `threshold` (log entries) and `retained` (files on disk) are
    only reported.

    A method that returns changes has changed memory already; the caller stores the changes. Durations are seconds,
    sizes bytes.
    """

    def __init__(
        self, node_id: str, saved: Saved, *, interval: float, threshold: int, retained: int = 1
    ) -> None:
        self._node_id = node_id
        self._interval = interval
        self._threshold = threshold
        self._retained = retained
        events = (msgspec.json.decode(body, type=SnapshotEvent) for body in saved.records.get(EVENT_KIND, ()))
        self._events = deque(events, maxlen=EVENTS_KEPT)
        records = (
            msgspec.json.decode(body, type=SnapshotRecord) for body in saved.records.get(SNAPSHOT_KIND, ())
        )
        self._records = deque(records, maxlen=SNAPSHOTS_KEPT)
        totals = saved.values.get(TOTALS)
        self._totals = _Totals() if totals is None else msgspec.json.decode(totals, type=_Totals)
        self.creations = Histogram(DURATION_BUCKETS)
        """Seconds of each creation since the start of the process; to be read only."""
        self.restores = Histogram(DURATION_BUCKETS)
        self._latest_mono: float | None = None
        """When the latest was made, if by this process."""

    @property
    def latest(self) -> SnapshotRecord | None:
        """The newest snapshot; it is on disk."""
        return self._totals.latest

    @property
    def kept(self) -> tuple[SnapshotRecord, ...]:
        """The snapshots on disk, the newest last."""
        return self._totals.kept

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
        """This node made a snapshot of its own state as of `index`."""
        record = SnapshotRecord(
            id=f"{term}-{index}",
            index=index,
            term=term,
            size=size,
            created_at=rfc3339(now.wall),
            creation_duration=_nanoseconds(duration),
            node_id=self._node_id,
            leader_id=leader_id,
            is_from_peer=False,
            peer_count=peer_count,
            entries_compacted=entries_compacted,
            previous_index=previous_index,
        )
        event = _succeeded("created", record, duration, now, entries_compacted=entries_compacted)
        totals = self._totals
        totals.created += 1
        totals.entries_compacted += entries_compacted
        totals.creation_seconds += duration
        totals.longest_creation = max(totals.longest_creation, duration)
        totals.last_creation = duration
        self.creations.observe(duration)
        return self._stored(event, record, now)

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
        """This node installed a peer's snapshot."""
        record = SnapshotRecord(
            id=f"{term}-{index}",
            index=index,
            term=term,
            size=size,
            created_at=rfc3339(now.wall),
            creation_duration=_nanoseconds(duration),
            node_id=from_peer,
            leader_id=leader_id,
            is_from_peer=True,
            peer_count=peer_count,
            entries_compacted=0,
            previous_index=self._totals.latest.index if self._totals.latest else 0,
        )
        event = _succeeded("received", record, duration, now, from_peer=from_peer)
        self._totals.received += 1
        return self._stored(event, record, now)

    def _stored(self, event: SnapshotEvent, record: SnapshotRecord, now: Instant) -> SnapshotOutcome:
        totals = self._totals
        # One with the id of a kept one has taken its place on disk.
        kept = (*(each for each in totals.kept if each.id != record.id), record)
        totals.kept = kept[-self._retained :]
        totals.latest_at = now.wall
        totals.bytes_written += record.size
        totals.largest = max(totals.largest, record.size)
        self._latest_mono = now.mono
        self._records.append(record)
        added = RecordAdded(SNAPSHOT_KIND, totals.snapshots, msgspec.json.encode(record), SNAPSHOTS_KEPT)
        changes = self._outcome(event, record, added).changes
        for removed in kept[: -self._retained]:
            changes += self._outcome(_deleted(removed, now)).changes
        return SnapshotOutcome(event, record, changes)

    def restored(self, *, index: int, term: int, size: int, duration: float, now: Instant) -> SnapshotOutcome:
        """The state machine was set to a snapshot, at a start or after receiving it."""
        self._totals.restores += 1
        self._totals.restore_seconds += duration
        self._totals.last_restore = duration
        self.restores.observe(duration)
        event = SnapshotEvent(
            timestamp=rfc3339(now.wall),
            type="restored",
            snapshot_id=f"{term}-{index}",
            index=index,
            term=term,
            size=size,
            duration_ms=_milliseconds(duration),
            success=True,
        )
        return self._outcome(event)

    def failed(self, *, kind: Literal["created", "restored"], message: str, now: Instant) -> SnapshotOutcome:
        """A snapshot could not be made or restored; the disk is unchanged."""
        if kind == "created":
            self._totals.failed_creations += 1
        else:
            self._totals.failed_restores += 1
        event = SnapshotEvent(
            timestamp=rfc3339(now.wall),
            type="error",
            snapshot_id="",
            index=0,
            term=0,
            size=0,
            duration_ms=0.0,
            success=False,
            error_message=message,
        )
        return self._outcome(event)

    def _outcome(
        self, event: SnapshotEvent, record: SnapshotRecord | None = None, *added: Change
    ) -> SnapshotOutcome:
        self._totals.events += 1
        self._events.append(event)
        event_row = RecordAdded(EVENT_KIND, self._totals.events, msgspec.json.encode(event), EVENTS_KEPT)
        return SnapshotOutcome(event, record, [event_row, *added, self._saved_totals()])

    def _saved_totals(self) -> Change:
        return ValueSet(TOTALS, msgspec.json.encode(self._totals))

    def report(self, now: Instant) -> SnapshotReport:
        totals, latest = self._totals, self._totals.latest
        age = self._age(now)
        return SnapshotReport(
            has_snapshot=latest is not None,
            latest_snapshot_id=latest.id if latest else "",
            latest_snapshot_index=latest.index if latest else 0,
            latest_snapshot_term=latest.term if latest else 0,
            latest_snapshot_size=latest.size if latest else 0,
            latest_snapshot_time=latest.created_at if latest else None,
            latest_snapshot_age_ms=int(age * 1000),
            latest_snapshot_age=duration_text(age),
            total_snapshots=totals.snapshots,
            total_snapshots_created=totals.created,
            total_snapshots_received=totals.received,
            total_restores=totals.restores,
            failed_creations=totals.failed_creations,
            failed_restores=totals.failed_restores,
            total_bytes_written=totals.bytes_written,
            total_entries_compacted=totals.entries_compacted,
            avg_snapshot_size=totals.bytes_written // max(1, totals.snapshots),
            largest_snapshot_size=totals.largest,
            avg_creation_time_ms=_milliseconds(totals.creation_seconds / max(1, totals.created)),
            max_creation_time_ms=_milliseconds(totals.longest_creation),
            last_creation_time_ms=_milliseconds(totals.last_creation),
            avg_restore_time_ms=_milliseconds(totals.restore_seconds / max(1, totals.restores)),
            last_restore_time_ms=_milliseconds(totals.last_restore),
            snapshot_interval_ms=int(self._interval * 1000),
            snapshot_interval=duration_text(self._interval),
            snapshot_threshold=self._threshold,
            retention_count=self._retained,
            time_since_last_snapshot_ms=int(age * 1000),
            time_since_last_snapshot=duration_text(age),
            snapshots_on_disk=len(totals.kept),
        )

    def _age(self, now: Instant) -> float:
        """Seconds since the latest was made, never negative. The wall clock counts only for one of an earlier
        process."""
        if self._latest_mono is not None:
            return max(0.0, now.mono - self._latest_mono)
        return max(0.0, now.wall - self._totals.latest_at) if self._totals.latest else 0.0

    def history(self, events: int = 100, snapshots: int = 10) -> SnapshotHistory:
        """The newest `events` and `snapshots`, newest first."""
        return SnapshotHistory(
            node_id=self._node_id,
            events=tuple(islice(reversed(self._events), events)),
            snapshots=tuple(islice(reversed(self._records), snapshots)),
            total_events=self._totals.events,
            total_snapshots=self._totals.snapshots,
        )

    def reset_changes(self) -> list[Change]:
        """What `reset` would return, for who stores it first."""
        tried = copy(self)
        tried._events, tried._records = copy(self._events), copy(self._records)
        return tried.reset()

    def reset(self) -> list[Change]:
        """Forget counters and history. The snapshots on disk stay known."""
        self._totals = _Totals(kept=self._totals.kept, latest_at=self._totals.latest_at)
        self._events.clear()
        self._records.clear()
        return [RecordsCleared(EVENT_KIND), RecordsCleared(SNAPSHOT_KIND), self._saved_totals()]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)


def _succeeded(
    kind: Literal["created", "received"],
    record: SnapshotRecord,
    duration: float,
    now: Instant,
    *,
    from_peer: str | UnsetType = UNSET,
    entries_compacted: int | UnsetType = UNSET,
) -> SnapshotEvent:
    return SnapshotEvent(
        timestamp=rfc3339(now.wall),
        type=kind,
        snapshot_id=record.id,
        index=record.index,
        term=record.term,
        size=record.size,
        duration_ms=_milliseconds(duration),
        success=True,
        from_peer=from_peer,
        entries_compacted=entries_compacted,
    )


def _deleted(record: SnapshotRecord, now: Instant) -> SnapshotEvent:
    return SnapshotEvent(
        timestamp=rfc3339(now.wall),
        type="deleted",
        snapshot_id=record.id,
        index=record.index,
        term=record.term,
        size=record.size,
        duration_ms=0.0,
        success=True,
    )
