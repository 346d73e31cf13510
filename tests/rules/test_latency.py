from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.clock import Instant
from heliosd.cluster.call_stats import percentile
from heliosd.cluster.latency import HealthChanged, LatencyTracker
from heliosd.errors import NotFound

WALL = 1_700_000_000.0


def at(seconds: float, *, jump: float = 0.0) -> Instant:
    return Instant(wall=WALL + seconds + jump, mono=seconds)


def tracker_of(*peers: str) -> LatencyTracker:
    tracker = LatencyTracker()
    for number, peer in enumerate(peers):
        tracker.add_peer(peer, f"127.0.0.1:{7001 + number}", at(0))
    return tracker


def test_three_failed_calls_in_a_row_make_a_peer_unhealthy_once() -> None:
    tracker = tracker_of("b")
    assert tracker.failed("b", "probe", at(1)) is None
    assert tracker.failed("b", "append_entries", at(2)) is None
    assert tracker.failed("b", "probe", at(3)) == HealthChanged("b", healthy=False)
    assert tracker.failed("b", "probe", at(4)) is None
    assert tracker.check(at(5)) == []
    shown = tracker.peer_latency("b", at(5))
    assert (shown.connection_healthy, shown.reachable, shown.consecutive_errors) == (False, False, 4)


def test_an_answer_in_between_restarts_the_count_of_failures() -> None:
    tracker = tracker_of("b")
    for _ in range(5):
        assert tracker.failed("b", "probe", at(1)) is None
        assert tracker.failed("b", "probe", at(1)) is None
        assert tracker.succeeded("b", "probe", 0.001, at(1)) is None


def test_a_failed_call_that_was_overtaken_by_an_answer_is_an_error_and_no_sign_of_bad_health() -> None:
    tracker = tracker_of("b")
    for _ in range(5):
        assert tracker.failed("b", "probe", at(1), overtaken=True) is None
    assert tracker.failed("b", "probe", at(1)) is None
    shown = tracker.peer_latency("b", at(1))
    assert (shown.error_count, shown.consecutive_errors, shown.connection_healthy) == (6, 1, True)


def test_the_first_answer_makes_a_peer_healthy_again() -> None:
    tracker = tracker_of("b")
    for _ in range(3):
        tracker.failed("b", "probe", at(1))
    assert tracker.succeeded("b", "probe", 0.001, at(2)) == HealthChanged("b", healthy=True)
    assert tracker.succeeded("b", "probe", 0.001, at(3)) is None
    assert tracker.peer_latency("b", at(3)).connection_healthy


def test_thirty_seconds_of_silence_make_a_peer_unhealthy_even_a_new_one() -> None:
    tracker = tracker_of("b", "c")
    tracker.succeeded("b", "probe", 0.001, at(20))
    assert tracker.check(at(29.9)) == []
    assert tracker.check(at(30)) == [HealthChanged("c", healthy=False)]
    assert tracker.check(at(49.9)) == []
    assert tracker.check(at(50)) == [HealthChanged("b", healthy=False)]
    assert tracker.cluster_health(at(50)).unhealthy_peers == 2


def test_a_jump_of_the_wall_clock_makes_no_peer_unhealthy() -> None:
    tracker = tracker_of("b")
    tracker.succeeded("b", "probe", 0.001, at(1))
    for years in (-10, 10):
        assert tracker.check(at(2, jump=years * 365 * 86_400)) == []


def test_silence_shows_in_a_report_before_a_check() -> None:
    tracker = tracker_of("b")
    tracker.succeeded("b", "probe", 0.001, at(0))
    assert tracker.peer_latency("b", at(29)).connection_healthy
    late = tracker.peer_latency("b", at(31))
    assert (late.connection_healthy, late.reachable) == (False, False)


def test_calls_to_a_peer_that_was_removed_are_ignored() -> None:
    tracker = tracker_of("b")
    tracker.remove_peer("b")
    tracker.remove_peer("b")
    assert tracker.succeeded("b", "probe", 0.001, at(1)) is None
    assert tracker.failed("b", "probe", at(1)) is None
    assert tracker.report(at(1)).peers == {}
    for read in (lambda: tracker.peer_latency("b", at(1)), lambda: tracker.peer_report("b", at(1))):
        with pytest.raises(NotFound) as caught:
            read()
        assert caught.value.field == "peer_id"


def test_adding_a_known_peer_keeps_its_samples_and_takes_its_address() -> None:
    tracker = tracker_of("b")
    tracker.succeeded("b", "probe", 0.001, at(1))
    tracker.add_peer("b", "127.0.0.1:9", at(2))
    report = tracker.peer_report("b", at(2))
    assert (report.address, report.probe.count) == ("127.0.0.1:9", 1)


def test_statistics_cover_the_last_hundred_samples_of_a_kind() -> None:
    tracker = tracker_of("b")
    for sample in range(1, 151):
        tracker.succeeded("b", "append_entries", sample / 1000, at(sample / 10))
    tracker.succeeded("b", "probe", 0.5, at(16))
    tracker.failed("b", "probe", at(17))
    report = tracker.report(at(18)).peers["b"]
    stats = report.append_entries
    assert (stats.count, stats.min_value_ms, stats.max_value_ms, stats.last_value_ms) == (100, 51, 150, 150)
    assert (stats.p50_value_ms, stats.p90_value_ms, stats.p99_value_ms) == (100, 140, 149)
    assert stats.avg_value_ms == 100.5
    assert stats.std_dev_ms == pytest.approx(math.sqrt((100**2 - 1) / 12), abs=0.001)
    assert (stats.error_count, stats.last_error_unix) == (0, msgspec.UNSET)
    assert (report.probe.error_count, report.probe.last_error_unix) == (1, int(WALL + 17))
    both = report.aggregated
    assert (both.count, both.max_value_ms, both.last_value_ms, both.error_count) == (101, 500, 500, 1)
    assert tracker.peer_latency("b", at(18)).error_rate == pytest.approx(1 / 152, abs=1e-6)


def test_the_report_has_the_keys_that_clients_read() -> None:
    tracker = tracker_of("b", "c")
    tracker.succeeded("b", "append_entries", 0.002, at(1))
    tracker.succeeded("c", "append_entries", 0.004, at(2))
    report = msgspec.to_builtins(tracker.report(at(3)))
    assert list(report) == ["peers", "aggregated", "health_summary"]
    assert report["health_summary"] == {"healthy": 2, "unhealthy": 0, "total": 2}
    assert report["aggregated"]["append_entries"]["avg_value_ms"] == 3.0
    assert report["aggregated"]["last_value_ms"] == 4.0
    assert report["peers"]["b"]["last_contact_unix"] == int(WALL + 1)
    assert list(report["peers"]["b"]) == [
        *("peer_id", "address", "append_entries", "request_vote", "install_snapshot", "probe", "aggregated"),
        *("last_contact", "last_contact_unix", "reachable", "consecutive_errors", "connection_healthy"),
    ]
    assert list(report["peers"]["b"]["probe"]) == [
        *("count", "last_value_ms", "min_value_ms", "max_value_ms", "avg_value_ms"),
        *("p50_value_ms", "p90_value_ms", "p99_value_ms", "std_dev_ms", "error_count"),
    ]
    assert tracker.peer_report("c", at(3)) == tracker.report(at(3)).peers["c"]


def test_a_peer_that_never_answered_has_no_last_contact() -> None:
    peer = tracker_of("b").report(at(1)).peers["b"]
    assert (peer.last_contact, peer.last_contact_unix, peer.reachable) == (None, 0, False)
    assert peer.connection_healthy
    assert tracker_of().cluster_health(at(1)).cluster_error_rate == 0.0


def test_a_reset_forgets_statistics_but_neither_health_nor_prometheus_totals() -> None:
    tracker = tracker_of("b")
    tracker.succeeded("b", "probe", 0.001, at(1))
    for _ in range(3):
        tracker.failed("b", "probe", at(2))
    tracker.reset()
    shown = tracker.peer_latency("b", at(3))
    assert (shown.sample_count, shown.error_count, shown.error_rate, shown.last_latency_ms) == (
        0,
        0,
        0.0,
        0.0,
    )
    assert (shown.connection_healthy, shown.consecutive_errors) == (False, 3)
    totals = next(call for call in tracker.call_totals() if call.kind == "probe")
    assert (totals.seconds.count, totals.errors) == (1, 3)
    tracker.failed("b", "probe", at(4))
    assert tracker.peer_latency("b", at(4)).error_rate == 1.0


@given(st.lists(st.floats(0, 1000, allow_nan=False), min_size=1, max_size=400), st.integers(1, 100))
def test_a_percentile_is_the_smallest_sample_that_enough_samples_do_not_exceed(
    samples: list[float], percent: int
) -> None:
    ascending = sorted(samples)
    found = percentile(ascending, percent)
    enough = [
        sample
        for sample in ascending
        if 100 * sum(each <= sample for each in samples) >= percent * len(samples)
    ]
    assert found == enough[0]


@given(st.lists(st.floats(0, 60, allow_nan=False), min_size=1, max_size=250))
def test_statistics_agree_with_the_last_samples_sorted(samples: list[float]) -> None:
    tracker = tracker_of("b")
    for sample in samples:
        tracker.succeeded("b", "probe", sample, at(1))
    kept = sorted(samples[-100:])
    stats = tracker.report(at(2)).peers["b"].probe
    assert stats.count == len(kept)
    assert stats.p50_value_ms == round(kept[math.ceil(len(kept) / 2) - 1] * 1000, 3)
    assert stats.min_value_ms <= stats.p50_value_ms <= stats.p90_value_ms <= stats.p99_value_ms
    assert stats.p99_value_ms <= stats.max_value_ms
    assert stats.min_value_ms <= stats.avg_value_ms <= stats.max_value_ms
    assert stats.last_value_ms == round(samples[-1] * 1000, 3)


def test_the_matrix_shows_who_measured_what_to_whom_and_nothing_old_or_of_a_removed_member() -> None:
    tracker = tracker_of("b", "c")
    for seconds in (0.001, 0.003):
        tracker.matrix.add("b", "c", seconds, at(1))
    tracker.round_trip("a", "b", 0.004, at(50))
    cell = {"avg_value_ms": 2.0, "last_value_ms": 3.0, "max_value_ms": 3.0, "count": 2, "age_ms": 49_000}
    shown = msgspec.to_builtins(tracker.matrix.report(at(50)))["members"]
    assert shown["b"] == {"c": cell}
    assert shown["a"]["b"]["age_ms"] == 0
    assert set(tracker.matrix.report(at(62)).members) == {"a"}
    tracker.remove_peer("b")
    assert tracker.matrix.report(at(50)).members == {}
