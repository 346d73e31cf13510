from __future__ import annotations

import msgspec
import pytest

from heliosd.clock import Instant
from heliosd.cluster.snapshots import SnapshotOutcome, SnapshotTracker
from heliosd.store.changes import Change, RecordAdded, RecordsCleared, Saved, ValueSet

WALL = 1_700_000_000.0


def at(seconds: float, *, jump: float = 0.0) -> Instant:
    return Instant(wall=WALL + seconds + jump, mono=seconds)


class Disk:
    """What a store would keep of the changes."""

    def __init__(self) -> None:
        self.records: dict[str, dict[int, bytes]] = {}
        self.values: dict[str, bytes] = {}

    def save(self, changes: list[Change]) -> None:
        for change in changes:
            match change:
                case RecordAdded(kind, key, body, keep):
                    rows = self.records.setdefault(kind, {})
                    rows[key] = body
                    for old in sorted(rows)[:-keep]:
                        del rows[old]
                case RecordsCleared(kind):
                    self.records.pop(kind, None)
                case ValueSet(name, body):
                    assert body is not None
                    self.values[name] = body
                case _:
                    raise AssertionError(change)

    def saved(self) -> Saved:
        rows = {kind: tuple(rows[key] for key in sorted(rows)) for kind, rows in self.records.items()}
        return Saved(records=rows, values=dict(self.values))


def tracker_on(disk: Disk, retained: int = 1) -> SnapshotTracker:
    return SnapshotTracker("node-1", disk.saved(), interval=300.0, threshold=10_000, retained=retained)


def create(tracker: SnapshotTracker, index: int, now: Instant, size: int = 1000) -> SnapshotOutcome:
    return tracker.created(
        index=index,
        term=5,
        size=size,
        duration=0.25,
        entries_compacted=25,
        leader_id="node-2",
        peer_count=2,
        previous_index=index - 25,
        now=now,
    )


def test_without_a_snapshot_the_report_says_so() -> None:
    report = tracker_on(Disk()).report(at(10))
    assert (report.has_snapshot, report.latest_snapshot_id, report.latest_snapshot_time) == (False, "", None)
    assert (report.snapshots_on_disk, report.latest_snapshot_age_ms, report.avg_snapshot_size) == (0, 0, 0)
    assert (report.snapshot_interval, report.snapshot_interval_ms, report.snapshot_threshold) == (
        "5m0s",
        300_000,
        10_000,
    )


def test_a_created_snapshot_is_the_latest_with_its_numbers() -> None:
    tracker = tracker_on(Disk())
    outcome = create(tracker, 125, at(0))
    assert outcome.record is tracker.latest
    assert outcome.record is not None
    assert (outcome.record.id, outcome.record.creation_duration) == ("5-125", 250_000_000)
    assert msgspec.to_builtins(outcome.event) == {
        "timestamp": "2023-11-14T22:13:20.000000Z",
        "type": "created",
        "snapshot_id": "5-125",
        "index": 125,
        "term": 5,
        "size": 1000,
        "duration_ms": 250.0,
        "success": True,
        "entries_compacted": 25,
    }
    report = tracker.report(at(3661))
    assert (report.latest_snapshot_age, report.latest_snapshot_age_ms) == ("1h1m1s", 3_661_000)
    assert (report.avg_creation_time_ms, report.total_entries_compacted) == (250.0, 25)
    assert report.snapshots_on_disk == report.retention_count == 1


def test_a_received_snapshot_names_its_sender_and_counts_apart() -> None:
    tracker = tracker_on(Disk())
    create(tracker, 125, at(0), size=1000)
    outcome = tracker.received(
        index=300,
        term=6,
        size=3000,
        duration=0.5,
        from_peer="node-3",
        leader_id="node-3",
        peer_count=2,
        now=at(1),
    )
    assert (outcome.event.type, outcome.event.from_peer) == ("received", "node-3")
    assert outcome.record is not None
    assert (outcome.record.is_from_peer, outcome.record.previous_index) == (True, 125)
    report = tracker.report(at(2))
    assert (report.total_snapshots, report.total_snapshots_created, report.total_snapshots_received) == (
        2,
        1,
        1,
    )
    assert (report.total_bytes_written, report.avg_snapshot_size, report.largest_snapshot_size) == (
        4000,
        2000,
        3000,
    )
    assert report.max_creation_time_ms == 250.0


def test_restores_and_failures_are_events_without_a_record() -> None:
    tracker = tracker_on(Disk())
    restored = tracker.restored(index=125, term=5, size=1000, duration=0.08, now=at(1))
    assert (restored.event.type, restored.event.snapshot_id, restored.record) == ("restored", "5-125", None)
    failed = tracker.failed(kind="created", message="disk full", now=at(2))
    assert (failed.event.type, failed.event.success, failed.event.error_message) == (
        "error",
        False,
        "disk full",
    )
    tracker.failed(kind="restored", message="damaged", now=at(3))
    report = tracker.report(at(4))
    assert (report.total_restores, report.failed_creations, report.failed_restores) == (1, 1, 1)
    assert (report.last_restore_time_ms, report.avg_restore_time_ms) == (80.0, 80.0)
    assert tracker.latest is None


def test_the_history_is_newest_first_and_cut_to_the_requested_length() -> None:
    tracker = tracker_on(Disk())
    for index in (25, 50, 75):
        create(tracker, index, at(index))
    history = tracker.history(events=3, snapshots=1)
    assert [(event.type, event.index) for event in history.events] == [
        ("deleted", 50),
        ("created", 75),
        ("deleted", 25),
    ]
    assert [snapshot.index for snapshot in history.snapshots] == [75]
    assert (history.total_events, history.total_snapshots) == (5, 3)


def test_a_snapshot_is_deleted_when_a_newer_one_exceeds_the_number_kept() -> None:
    tracker = SnapshotTracker("node-1", Saved(), interval=300.0, threshold=10, retained=3)
    for index in range(1, 6):
        create(tracker, index, at(index))
    deleted = [event for event in tracker.history().events if event.type == "deleted"]
    assert [(event.index, event.success) for event in deleted] == [(2, True), (1, True)]


def test_a_snapshot_with_the_id_of_the_last_one_replaces_it_on_disk_and_removes_no_other() -> None:
    disk = Disk()
    tracker = tracker_on(disk, retained=3)
    for number, index in enumerate((1, 2, 3, 3)):
        disk.save(create(tracker, index, at(number), size=1000 + number).changes)
    for each in (tracker, tracker_on(disk, retained=3)):
        assert [(snapshot.index, snapshot.size) for snapshot in each.kept] == [
            (1, 1000),
            (2, 1001),
            (3, 1003),
        ]
        assert each.report(at(9)).snapshots_on_disk == 3
        assert [event.type for event in each.history().events] == ["created"] * 4
    create(tracker, 4, at(5))
    assert [event.index for event in tracker.history().events if event.type == "deleted"] == [1]


def test_after_a_reset_all_snapshots_on_disk_are_still_known_and_deleted_in_their_order() -> None:
    disk = Disk()
    tracker = tracker_on(disk, retained=3)
    for index in (1, 2, 3):
        disk.save(create(tracker, index, at(index)).changes)
    disk.save(tracker.reset())
    for each in (tracker, tracker_on(disk, retained=3)):
        assert each.report(at(4)).snapshots_on_disk == 3
        create(each, 4, at(5))
        create(each, 5, at(6))
        assert [event.index for event in each.history().events if event.type == "deleted"] == [2, 1]


def test_after_a_reset_the_snapshot_on_disk_is_still_deleted_by_the_next() -> None:
    tracker = tracker_on(Disk())
    create(tracker, 25, at(1))
    tracker.reset()
    create(tracker, 50, at(2))
    assert [(event.type, event.index) for event in tracker.history().events] == [
        ("deleted", 25),
        ("created", 50),
    ]


def test_totals_survive_a_restart_and_the_trimming_of_the_history() -> None:
    disk = Disk()
    tracker = tracker_on(disk)
    for number in range(1, 1102):
        disk.save(create(tracker, number, at(number)).changes)
    again = tracker_on(disk)
    assert again.report(at(1102)) == tracker.report(at(1102))
    assert again.history(1000, 100) == tracker.history(1000, 100)
    assert (len(disk.records["snapshot_event"]), len(disk.records["snapshot"])) == (1000, 100)
    assert again.report(at(1102)).total_snapshots_created == 1101
    assert again.latest == tracker.latest


def test_after_a_restart_new_rows_follow_the_old_ones() -> None:
    disk = Disk()
    disk.save(create(tracker_on(disk), 25, at(0)).changes)
    disk.save(create(tracker_on(disk), 50, at(1)).changes)
    assert [snapshot.index for snapshot in tracker_on(disk).history().snapshots] == [50, 25]


def test_a_reset_forgets_counters_and_history_but_not_the_snapshot_on_disk() -> None:
    disk = Disk()
    tracker = tracker_on(disk)
    disk.save(create(tracker, 125, at(0)).changes)
    disk.save(tracker.reset())
    for each in (tracker, tracker_on(disk)):
        report = each.report(at(5))
        assert (report.has_snapshot, report.latest_snapshot_id, report.snapshots_on_disk) == (
            True,
            "5-125",
            1,
        )
        assert (report.total_snapshots, report.total_bytes_written) == (0, 0)
        history = each.history()
        assert (history.events, history.snapshots, history.total_events) == ((), (), 0)


@pytest.mark.parametrize("years", [-10, 10])
def test_a_jump_of_the_wall_clock_neither_ages_a_snapshot_nor_makes_it_negative(years: int) -> None:
    disk = Disk()
    tracker = tracker_on(disk)
    disk.save(create(tracker, 125, at(0)).changes)
    jumped = at(10, jump=years * 365 * 86_400)
    assert tracker.report(jumped).latest_snapshot_age == "10s"
    assert tracker_on(disk).report(jumped).latest_snapshot_age_ms >= 0
