from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Sample
from prometheus_client.parser import text_string_to_metric_families

from heliosd.cluster.metric_commands import RegisterMetric, UpdateMetric
from heliosd.hub.counters import HubCounters
from heliosd.protocol.views.snapshots import SnapshotReport
from heliosd.protocol.views.status import NodeView
from heliosd.web.rest.prometheus import CONTENT_TYPE, bound_text
from tests.support.metric_readings import LATER, START, Readings

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


def samples_of(text: str) -> list[Sample]:
    """As the reference parser reads them, but under the names that stand in the text: it calls every counter
    NAME_total."""
    names = [line.split("{")[0].split(" ")[0] for line in text.split("\n") if line and line[0] != "#"]
    parsed = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len(parsed) == len(names)
    return [sample._replace(name=name) for name, sample in zip(names, parsed, strict=True)]


def value(text: str, name: str, **labels: str) -> float:
    (found,) = [each.value for each in samples_of(text) if each.name == name and each.labels == labels]
    return found


def test_every_name_of_the_contract_stands_in_the_text() -> None:
    node = Readings()
    node.latency.add_peer("node-2", "127.0.0.1:7001", START)
    node.latency.succeeded("node-2", "probe", 0.002, START)
    counters = HubCounters(bytes=12)
    counters.connections["accepted"] += 2
    counters.messages["status"] += 4
    counters.dropped["slow"] += 1
    counters.broadcast.observe(0.001)
    found = {
        (sample.name, *sorted(set(sample.labels) - {"le"})) for sample in samples_of(node.text(counters))
    }
    node_names = (
        *(
            "uptime_seconds",
            "total_uptime_seconds",
            "total_downtime_seconds",
            "sessions_total",
            "restarts_total",
        ),
        *("crashes_total", "leader_time_seconds", "follower_time_seconds", "candidate_time_seconds"),
        *("elections_total", "terms_as_leader_total", "leadership_ratio", "mtbf_seconds"),
    )
    histogram = ("bucket", "sum", "count")
    assert found >= {
        *((f"raft_node_{name}", "node_id") for name in node_names),
        ("raft_node_uptime_percentage", "node_id", "period"),
        *((f"raft_peer_latency_seconds_{part}", "node_id", "peer_id", "rpc_type") for part in histogram),
        ("raft_peer_rpc_total", "node_id", "peer_id", "result", "rpc_type"),
        ("raft_peer_healthy", "node_id", "peer_id"),
        ("raft_peer_last_contact_seconds", "node_id", "peer_id"),
        ("raft_peer_consecutive_errors", "node_id", "peer_id"),
        ("raft_cluster_healthy_peers",),
        ("raft_cluster_unhealthy_peers",),
        *((f"raft_cluster_{name}",) for name in ("has_leader", "voters", "quorum_at_risk")),
        *((f"raft_node_{name}", "node_id") for name in ("is_leader", "term")),
        ("raft_snapshot_total", "node_id", "type"),
        *((f"raft_snapshot_duration_seconds_{part}", "node_id", "operation") for part in histogram),
        ("raft_snapshot_errors", "node_id", "operation"),
        *((f"raft_snapshot_{name}", "node_id") for name in ("size", "index", "term", "age_seconds")),
        *((f"raft_snapshot_{name}", "node_id") for name in ("bytes_written", "entries_compacted", "on_disk")),
        ("raft_snapshot_total_snapshots_created",),
        ("raft_snapshot_latest_snapshot_index",),
        ("heliosd_ws_clients",),
        ("heliosd_ws_connections_total", "result"),
        ("heliosd_ws_messages_total", "type"),
        ("heliosd_ws_bytes_total",),
        ("heliosd_ws_dropped_total", "reason"),
        *((f"heliosd_ws_broadcast_seconds_{part}",) for part in histogram),
        *((f"heliosd_loop_lag_seconds_{part}",) for part in histogram),
        ("heliosd_ws_queue_depth",),
        ("process_resident_memory_bytes",),
        ("process_open_fds",),
    }
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_every_family_is_in_the_table_of_the_page_about_operating() -> None:
    """But those of the process, and `raft_snapshot_FIELD`, which the table has as one row."""
    documented: set[str] = set()
    for row in re.findall(r"^\| (`[^|]*) \|", OPERATING.read_text(), re.MULTILINE):
        names = re.findall(r"`(…?[a-z0-9_]+)`", row)
        first = names[0].rpartition("_")[0] if names else ""
        documented |= {f"{first}{name[1:]}" if name.startswith("…") else name for name in names}
    text = Readings().text(HubCounters())
    families = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    fields = {f"raft_snapshot_{name}" for name in SnapshotReport.__struct_fields__}
    fields |= {f"{name.removesuffix('_ms')}_seconds" for name in fields if name.endswith("_ms")}
    assert {
        name for name in families - documented - fields if not name.startswith(("process_", "python_"))
    } == set()
    assert len(families & documented) > 50


def test_the_figures_are_those_of_the_trackers() -> None:
    node = Readings()
    node.latency.add_peer("node-2", "127.0.0.1:7001", START)
    node.latency.succeeded("node-2", "probe", 0.002, START)
    for _ in range(3):
        node.latency.failed("node-2", "probe", LATER)
    node.take_snapshot()
    counters = HubCounters(bytes=12)
    counters.dropped["slow"] += 5
    text = node.text(counters)
    own = {"node_id": "node-1"}
    probe = {**own, "peer_id": "node-2", "rpc_type": "probe"}
    assert value(text, "raft_node_uptime_seconds", **own) == 60
    assert value(text, "raft_node_uptime_percentage", **own, period="24h") == 100
    assert value(text, "raft_peer_rpc_total", **probe, result="success") == 1
    assert value(text, "raft_peer_rpc_total", **probe, result="error") == 3
    assert value(text, "raft_peer_latency_seconds_bucket", **probe, le="0.001") == 0
    assert value(text, "raft_peer_latency_seconds_bucket", **probe, le="0.0025") == 1
    assert value(text, "raft_peer_latency_seconds_bucket", **probe, le="+Inf") == 1
    assert value(text, "raft_peer_healthy", **own, peer_id="node-2") == 0
    assert value(text, "raft_peer_last_contact_seconds", **own, peer_id="node-2") == 60
    assert value(text, "raft_peer_consecutive_errors", **own, peer_id="node-2") == 3
    assert value(text, "raft_cluster_unhealthy_peers") == 1
    assert value(text, "raft_cluster_has_leader") == 1
    assert value(text, "raft_cluster_voters") == 2
    assert value(text, "raft_cluster_quorum_at_risk") == 1
    assert value(text, "raft_node_is_leader", **own) == 1
    assert value(text, "raft_node_term", **own) == 5
    assert value(text, "raft_snapshot_total", **own, type="created") == 1
    assert value(text, "raft_snapshot_total", **own, type="received") == 0
    assert value(text, "raft_snapshot_size", **own) == 500
    assert value(text, "raft_snapshot_index", **own) == 9
    assert value(text, "raft_snapshot_age_seconds", **own) == 60
    assert value(text, "raft_snapshot_on_disk", **own) == 1
    assert value(text, "raft_snapshot_errors", **own, operation="create") == 0
    assert value(text, "raft_snapshot_duration_seconds_bucket", **own, operation="create", le="0.25") == 0
    assert value(text, "raft_snapshot_duration_seconds_sum", **own, operation="create") == 0.5
    assert value(text, "raft_snapshot_duration_seconds_count", **own, operation="restore") == 0
    assert value(text, "raft_snapshot_latest_snapshot_size") == 500
    assert value(text, "raft_snapshot_has_snapshot") == 1
    assert value(text, "raft_snapshot_last_creation_time_ms") == 500
    assert value(text, "raft_snapshot_last_creation_time_seconds") == 0.5
    assert value(text, "heliosd_ws_clients") == 3
    assert value(text, "heliosd_ws_queue_depth") == 7
    assert value(text, "heliosd_ws_bytes_total") == 12
    assert value(text, "heliosd_ws_dropped_total", reason="slow") == 5


def test_a_learner_that_is_down_is_no_voter_and_puts_no_quorum_at_risk() -> None:
    node = Readings(silent_learners=frozenset({"node-4"}))
    for peer in ("node-2", "node-3", "node-4"):
        node.latency.add_peer(peer, "", START)
        node.latency.succeeded(peer, "probe", 0.002, LATER)
    for _ in range(3):
        node.latency.failed("node-4", "probe", LATER)
    text = node.text()
    assert value(text, "raft_cluster_unhealthy_peers") == 1
    assert value(text, "raft_cluster_voters") == 3
    assert value(text, "raft_cluster_quorum_at_risk") == 0


def test_a_voter_that_is_this_nodes_own_puts_the_quorum_at_risk_while_it_is_silent() -> None:
    node = Readings(node=NodeView("node-1", "Unknown", 5, voter=True, healthy=False))
    for peer in ("node-2", "node-3"):
        node.latency.add_peer(peer, "", START)
        node.latency.succeeded(peer, "probe", 0.002, LATER)
    text = node.text()
    assert value(text, "raft_cluster_voters") == 3
    assert value(text, "raft_cluster_quorum_at_risk") == 1


@pytest.mark.parametrize("kind", ["counter", "gauge"])
@pytest.mark.parametrize(
    "name", ["jobs", "jobs_total", "_total", "a:b", "jobs_created", "jobs_info", "x_bucket"]
)
def test_a_custom_metric_stands_under_exactly_its_name_with_its_type(kind: Any, name: str) -> None:
    step = {"delta": 2.5} if kind == "counter" else {"value": 2.5}
    text = Readings().custom(
        RegisterMetric(name=name, type=kind, help="Jobs.", labels={"env": "prod"}, at=0.0),
        UpdateMetric(name=name, at=0.0, **step),
    )
    assert f'# HELP {name} Jobs.\n# TYPE {name} {kind}\n{name}{{env="prod"}} 2.5\n' in text
    assert len(re.findall(r"^# TYPE .*jobs|^# TYPE _total", text, re.M)) <= 1


def test_a_custom_histogram_shows_buckets_sum_and_count_also_below_zero() -> None:
    text = Readings().custom(
        RegisterMetric(name="t", type="histogram", labels={"x": "y"}, buckets=(-1.5, 0.0, 1e16), at=0.0),
        UpdateMetric(name="t", value=-1.0, at=0.0),
        UpdateMetric(name="t", value=2.0, at=0.0),
    )
    assert [value(text, "t_bucket", x="y", le=le) for le in ("-1.5", "0", "1e+16", "+Inf")] == [0, 1, 2, 2]
    assert (value(text, "t_count", x="y"), value(text, "t_sum", x="y")) == (2, 1)
    assert "\n# TYPE t histogram\n" in text


def test_help_that_looks_like_the_format_cannot_break_out_of_its_line() -> None:
    text = Readings().custom(
        RegisterMetric(
            name="c",
            type="counter",
            help="# TYPE c gauge\n# TYPE c gauge\nc 7\\",
            labels={"l": '"} 9\nc 8\\'},
            at=0.0,
        )
    )
    assert value(text, "c", l='"} 9\nc 8\\') == 0
    assert "\n# TYPE c counter\n" in text
    assert "# HELP c # TYPE c gauge\\n# TYPE c gauge\\nc 7\\\\\n" in text


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", fullmatch=True).filter(
    lambda name: not name.startswith(("__", "raft_", "heliosd_", "process_", "python_"))
)
LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,10}", fullmatch=True).filter(lambda name: name != "le"),
    TEXT,
    max_size=3,
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(name=NAMES, text=TEXT, labels=LABELS, number=FINITE)
def test_any_allowed_text_is_escaped_and_a_gauge_holds_exactly_its_value(
    name: str, text: str, labels: dict[str, str], number: float
) -> None:
    shown = Readings().custom(
        RegisterMetric(name=name, type="gauge", help=text, labels=labels, at=0.0),
        UpdateMetric(name=name, value=number, at=0.0),
    )
    assert value(shown, name, **labels) == number


@given(name=NAMES, text=TEXT, labels=LABELS, number=st.floats(0, 1e300))
def test_any_counter_parses_under_its_own_name_with_exactly_its_value(
    name: str, text: str, labels: dict[str, str], number: float
) -> None:
    shown = Readings().custom(
        RegisterMetric(name=name, type="counter", help=text, labels=labels, at=0.0),
        UpdateMetric(name=name, delta=number, at=0.0),
    )
    assert value(shown, name, **labels) == number
    assert f"\n# TYPE {name} counter\n" in shown


def test_no_two_lines_show_the_same_series() -> None:
    commands = [
        RegisterMetric(name="h", type="histogram", at=0.0),
        RegisterMetric(name="c", type="counter", at=0.0),
        RegisterMetric(name="c_total", type="counter", at=0.0),
        RegisterMetric(name="c_created", type="gauge", at=0.0),
        RegisterMetric(name="h_created", type="gauge", at=0.0),
        RegisterMetric(name="h_total", type="counter", at=0.0),
    ]
    text = Readings().custom(*commands)
    series = [(sample.name, *sorted(sample.labels.items())) for sample in samples_of(text)]
    assert len(series) == len(set(series))
    headed = re.findall(r"^# TYPE (\S+)", text, re.M)
    assert len(headed) == len(set(headed))


@pytest.mark.needs("promtool")
def test_promtool_reads_it() -> None:
    text = Readings().custom(
        RegisterMetric(name="jobs", type="counter", help="Jobs.", labels={"a": 'x"\n\\'}, at=0.0),
        RegisterMetric(name="jobs_total", type="counter", help="Jobs.", at=0.0),
        RegisterMetric(name="t", type="histogram", help="T.", buckets=(-1.0, 1.0), at=0.0),
    )
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text.encode(), capture_output=True, timeout=60, check=False
    )
    # 3: it read everything and has remarks on style, such as a counter's missing _total.
    assert checked.returncode in {0, 3}, checked.stderr


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_bound_as_text_loses_nothing(bound: float) -> None:
    assert float(bound_text(bound)) == bound
