"""What is read from the /metrics of etcd itself. The bodies are those of real members of 3.4.23 (without the
`grpc_server_*` families, which are most of one), run with `--snapshot-count 50`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.etcd.member_metrics import Measured, RoundTrips, Sums, mean_since, measured

BODIES = Path(__file__).parent / "etcd"
LEADER = (BODIES / "metrics-leader-3.4.23.txt").read_text(encoding="utf-8")
RESTARTED = (BODIES / "metrics-restarted-3.4.23.txt").read_text(encoding="utf-8")


def test_a_leaders_body_is_read() -> None:
    assert measured(LEADER) == Measured(
        is_leader=True,
        leader_changes=1,
        round_trips={
            "5b43fdbbeab2ef97": Sums(0.000330522, 2),
            "889e276ab796edad": Sums(0.000266752, 2),
        },
        snapshots_saved=Sums(0.000110293, 2),
        snapshots_received=Sums(0.0, 0),
        started=1795423153.48,
        db_size=61440,
        db_in_use=49152,
        db_quota=2147483648,
    )


def test_a_member_that_has_just_started_has_measured_nothing_yet() -> None:
    fresh = measured(RESTARTED)
    assert (fresh.is_leader, fresh.round_trips, fresh.snapshots_saved.times) == (False, {}, 0)
    assert fresh.started is not None
    assert fresh.started > 1795423153.48


@pytest.mark.parametrize(
    "line",
    [
        "process_start_time_seconds NaN",
        "process_start_time_seconds +Inf",
        "process_start_time_seconds -1",
        "process_start_time_seconds",
        "process_start_time_seconds{} ",
        "process_start_time_seconds soon",
        "process_start_time_seconds 1 2 3",
        'process_start_time_seconds{a="b"} 1',
        "process_start_time_seconds_of_another 1",
        "# process_start_time_seconds 1",
        'etcd_network_peer_round_trip_time_seconds_sum{To="a"} 1',
        'etcd_network_peer_round_trip_time_seconds_count{From="a"} 1',
        'etcd_network_peer_round_trip_time_seconds_sum{To="a} 1',
    ],
)
def test_what_is_no_sample_of_a_family_is_passed_over(line: str) -> None:
    assert measured(f"{line}\n") == Measured()


def test_a_timestamp_behind_a_value_is_allowed() -> None:
    assert measured("process_start_time_seconds 12.5 1795423153000\n").started == 12.5


@given(st.text() | st.text(alphabet='etcdnwork_pris{}="\\, \n0.1To'))
def test_no_text_is_a_fault(text: str) -> None:
    measured(text)
    measured(f"etcd_network_peer_round_trip_time_seconds{text}")


def test_the_mean_is_of_what_was_counted_between_two_readings() -> None:
    assert mean_since(Sums(1.0, 2), Sums(4.0, 4)) == 1.5
    assert mean_since(None, Sums(4.0, 4)) == 1.0
    assert mean_since(Sums(4.0, 4), Sums(4.0, 4)) is None
    assert mean_since(None, Sums()) is None


def test_a_member_that_was_started_anew_is_counted_from_its_start() -> None:
    assert mean_since(Sums(100.0, 50), Sums(1.0, 2)) == 0.5


def test_round_trips_of_two_members_are_never_subtracted_from_each_other() -> None:
    round_trips = RoundTrips()
    assert round_trips.since_last("a", Measured(round_trips={"c": Sums(1.0, 1000)})) == {"c": 0.001}
    assert round_trips.since_last("b", Measured(round_trips={"c": Sums(3.003, 1001)})) == {"c": 0.003}
    assert round_trips.since_last("b", Measured(round_trips={"c": Sums(3.013, 1002)})) == {
        "c": pytest.approx(0.01)
    }
    assert round_trips.since_last("b", Measured(round_trips={"c": Sums(3.013, 1002)})) == {"c": None}
