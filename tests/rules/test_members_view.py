"""The cluster as rows of members, and what `status --check` calls unhealthy."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.cli.members_view import Cluster, cluster_of
from heliosd.cli.report import Report, Table, rendered
from heliosd.cli.top_view import TopReading, TopView
from heliosd.cli.yaml_text import yaml_text


def cluster(
    *,
    down: int = 0,
    peers: int = 2,
    learners: int = 0,
    leader: str = "a",
    stale: bool = False,
    alarms: tuple[str, ...] = (),
) -> Cluster:
    """As `answers` says."""
    status, states = answers(
        down=down, peers=peers, learners=learners, leader=leader, stale=stale, alarms=alarms
    )
    return cluster_of(status, states)


def answers(
    *,
    down: int = 0,
    peers: int = 2,
    learners: int = 0,
    leader: str = "a",
    stale: bool = False,
    alarms: tuple[str, ...] = (),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Status and peers, of a daemon that does not say who votes: this node `a`, peers of which the first `down` are
    unhealthy, and learners. `alarms`: of each peer."""

    def peer(number: int) -> dict[str, Any]:
        latency = {
            "connection_healthy": number >= down,
            "sample_count": 3,
            "avg_latency_ms": 2.5,
            "last_contact_unix": 1_700_000_000,
        }
        return {
            "id": f"p{number}",
            "address": f"127.0.0.1:{7000 + number}",
            "match_index": 90,
            "latency": latency,
            "alarms": list(alarms),
        }

    status = {
        "node": {"id": "a", "state": "Leader" if leader == "a" else "Follower", "term": 4},
        "leader": {"id": leader, "address": "127.0.0.1:6999", "is_leader": leader == "a"},
        "indices": {"last_log": 100},
        "peers": [peer(number) for number in range(peers + learners)],
        "observed_by": "a",
        "observed_at": "2026-11-28T03:00:00Z",
        "stale": stale,
    }
    states = [
        {"id": f"p{number}", "state": "Follower" if number < peers else "Learner"}
        for number in range(peers + learners)
    ]
    return status, states


@pytest.mark.parametrize(
    ("given_cluster", "problem"),
    [
        (cluster(), ""),
        (cluster(peers=4, down=1), ""),
        (cluster(peers=0), ""),
        (cluster(peers=1), ""),
        (cluster(learners=1), ""),
        (cluster(down=1), "quorum at risk: 2 of 3 voters are healthy, 2 are needed"),
        (cluster(down=1, learners=2), "quorum at risk: 2 of 3 voters are healthy, 2 are needed"),
        (cluster(peers=4, down=2), "quorum at risk: 3 of 5 voters are healthy, 3 are needed"),
        (cluster(down=2), "quorum lost: 1 of 3 voters are healthy, 2 are needed"),
        (cluster(peers=1, down=1), "quorum lost: 1 of 2 voters are healthy, 2 are needed"),
        (cluster(leader=""), "no leader"),
        (cluster(peers=1, alarms=("NOSPACE",)), "alarm NOSPACE at p0"),
        (cluster(stale=True), "stale: this may be out of date"),
    ],
)
def test_a_cluster_is_unhealthy_without_a_leader_a_safe_quorum_or_a_fresh_view_and_with_an_alarm(
    given_cluster: Cluster, problem: str
) -> None:
    assert given_cluster.problems() == ([problem] if problem else [])


@pytest.mark.parametrize("silent_state", ["Unknown", "Down"])
def test_a_learner_that_is_down_puts_no_quorum_at_risk_by_the_word_of_a_daemon_that_says_who_votes(
    silent_state: str,
) -> None:
    def problems(voters: set[str]) -> list[str]:
        status, states = answers(down=1)
        status["peers"] = [{**peer, "voter": peer["id"] in voters} for peer in status["peers"]]
        states = [{**state, "state": silent_state} if state["id"] == "p0" else state for state in states]
        return cluster_of(status, states).problems()

    assert problems({"p1"}) == []
    assert problems({"p0", "p1"}) == ["quorum at risk: 2 of 3 voters are healthy, 2 are needed"]


def test_the_lag_is_in_entries_and_unknown_where_nobody_says() -> None:
    members = cluster().members
    assert [(member.id, member.lag_entries) for member in members] == [("a", 0), ("p0", 10), ("p1", 10)]
    assert [member.role for member in members] == ["Leader", "Follower", "Follower"]


def test_a_table_is_as_wide_as_the_terminal_and_says_where_it_was_shortened() -> None:
    table = Table(["Member", "Address"], [["node-1", "x" * 100], ["n2", "y"]], "Cluster")
    for width in (40, 80, 120):
        lines = rendered(Report({}, [table]), "table", width=width).splitlines()
        assert {len(line) for line in lines} == {min(width, 113)}
        assert any("…" in line for line in lines) == (width < 113)
    assert max(map(len, rendered(Report({}, [table]), "table").splitlines())) == 113


def test_a_table_leaves_out_what_is_optional_before_it_shortens_anything() -> None:
    table = Table(["Member", "ID", "Address"], [["m1", "8e9e05c52164694d", "127.0.0.1:2379"]], "", ["ID"])
    assert "8e9e05c52164694d" in rendered(Report({}, [table]), "table", width=80)
    narrow = rendered(Report({}, [table]), "table", width=30)
    assert "ID" not in narrow
    assert "127.0.0.1:2379" in narrow


def test_a_number_is_never_cut() -> None:
    table = Table(["Metric", "Value"], [["m" * 40, 123456789012]])
    lines = rendered(Report({}, [table]), "table", width=40).splitlines()
    assert {len(line) for line in lines} == {40}
    assert "123456789012" in lines[3]


def test_tsv_keeps_one_row_a_line_whatever_is_in_it() -> None:
    table = Table(["A b", "C"], [["tab\there", "line\nend"], [None, 1.5], [True, "\\"]])
    assert rendered(Report({}, [table]), "tsv") == ("a_b\tc\ntab\\there\tline\\nend\n\t1.5\ntrue\t\\\\\n")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=settings().max_examples * 2 // 5)
@given(JSON)
def test_yaml_says_the_same_as_json(value: Any) -> None:
    assert yaml.safe_load(yaml_text(value)) == value


@pytest.mark.parametrize(
    ("moments", "rate"), [([0, 30], "2.0"), ([0, 2, 4], "2.0"), ([3600, 0, 10], "2.0"), ([0], "")]
)
def test_top_has_a_rate_from_the_second_reading_on_however_far_apart_they_are(
    moments: list[int], rate: str
) -> None:
    view = TopView("http://daemon", "admin", colour=False)
    status = answers()[0] | {"sessions": {"active_count": 0}, "uptime": "1m"}
    status["indices"] |= {"commit_index": 100, "applied_index": 100}
    for moment in moments:
        jobs = {"type": "counter", "value": 2.0 * moment, "labels": {}, "created_at": "then"}
        view.read(TopReading(moment, cluster(), status, {"jobs": jobs}))
    row = next(line for line in view.lines(100, 40, moments[-1]) if "jobs" in line)
    assert [part.strip() for part in row.strip("|").split("|")][3] == rate
