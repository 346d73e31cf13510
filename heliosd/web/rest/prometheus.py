"""`GET /metrics`: everything that heliosd counts, in Prometheus' text format 0.0.4 or as OpenMetrics.

Seconds and bytes are Prometheus' base units. Earlier builds showed durations of `GET …/snapshot` in milliseconds;
those names stay for scrapers. A custom metric stands under exactly its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from math import inf
from typing import Final

from msgspec import UNSET, structs
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    Sample,
    UnknownMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from heliosd.alerts.conditions import Observation, quorum_at_risk
from heliosd.alerts.counters import AlertCounters
from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.cluster.latency import LatencyTracker
from heliosd.cluster.snapshots import SnapshotTracker
from heliosd.hub.counters import HubCounters
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.protocol.views.status import ClusterStatus
from heliosd.protocol.views.uptime import UptimeReport

from .metric_families import add_histogram, counter, gauge, labelled_counters, labelled_gauges
from .openmetrics import END, CustomFamilies, Families, Format, openmetrics_text

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_OLD_UNIT = "_ms"


def parts(
    *,
    backend: Backend,
    hub_counters: HubCounters,
    ws_clients: int,
    sse_clients: int,
    queue_depth: int,
    alerts: AlertCounters,
    events_stored: bool,
    tasks: int,
    now: Instant,
    form: Format = Format.TEXT,
) -> Iterator[bytes]:
    """A page in parts, each of which takes at most some milliseconds: heliosd's own metrics, then the custom ones,
    each as it stands when its part is taken. `queue_depth`: messages queued for all clients together."""
    uptime = backend.uptime.report(now)
    families = [
        *_uptime(uptime),
        *_peers(backend.latency, uptime.node_id, now),
        *_cluster(backend.status(), uptime.node_id),
        *_snapshots(backend.snapshots, uptime.node_id, now, old_names=form is not Format.PLAIN),
        *_hub(hub_counters, ws_clients, sse_clients, queue_depth),
        *_alerts(alerts),
        gauge("heliosd_events_stored", "1 while every event is on disk.", events_stored),
        gauge("heliosd_tasks", "Tasks of the event loop.", tasks),
    ]
    types = backend.metrics.types()
    if form is Format.OPENMETRICS:
        yield openmetrics_text([*families, *_process().collect()])
        custom_families = CustomFamilies(types)
        for name in types:
            if name in backend.metrics:  # else it has been deleted since
                yield openmetrics_text(custom_families.of(backend.metrics.view(name)))
        yield END
        return
    yield _text(families) + generate_latest(_process())
    for name in types:
        if name in backend.metrics:
            yield _custom(backend.metrics.view(name))


def _text(families: Iterable[Metric]) -> bytes:
    return generate_latest(Families(families))


@cache
def _process() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _uptime(report: UptimeReport) -> Iterable[Metric]:
    past, states, leadership = report.historical, report.state_time, report.leadership
    percentage = GaugeMetricFamily(
        "raft_node_uptime_percentage",
        "Share of the period that this node was up, 0 to 100.",
        labels=["node_id", "period"],
    )
    node = report.node_id
    percentage.add_metric([node, "24h"], past.uptime_percentage_24h)
    percentage.add_metric([node, "7d"], past.uptime_percentage_7d)
    percentage.add_metric([node, "30d"], past.uptime_percentage_30d)
    percentage.add_metric([node, "all"], past.uptime_percentage_all)
    return [
        gauge(
            "raft_node_uptime_seconds",
            "Length of this session.",
            report.current_session.uptime_ms / 1000,
            node,
        ),
        gauge("raft_node_total_uptime_seconds", "Length of all sessions.", past.total_uptime_ms / 1000, node),
        gauge(
            "raft_node_total_downtime_seconds", "Time between sessions.", past.total_downtime_ms / 1000, node
        ),
        percentage,
        counter("raft_node_sessions_total", "Starts of the daemon.", past.total_sessions, node),
        counter("raft_node_restarts_total", "Starts after the first.", past.restarts, node),
        counter("raft_node_crashes_total", "Sessions that ended without a stop.", past.crashes, node),
        gauge("raft_node_leader_time_seconds", "Time spent as leader.", states.leader_ms / 1000, node),
        gauge("raft_node_follower_time_seconds", "Time spent as follower.", states.follower_ms / 1000, node),
        gauge(
            "raft_node_candidate_time_seconds", "Time spent as candidate.", states.candidate_ms / 1000, node
        ),
        counter("raft_node_elections_total", "Elections stood in.", leadership.elections_participated, node),
        counter("raft_node_terms_as_leader_total", "Terms led.", leadership.terms_as_leader, node),
        gauge(
            "raft_node_leadership_ratio", "Leader time by time in any role.", states.leadership_ratio, node
        ),
        gauge("raft_node_mtbf_seconds", "Mean time between failures.", past.mtbf_seconds, node),
    ]


def _peers(latency: LatencyTracker, node: str, now: Instant) -> Iterable[Metric]:
    kinds = ["node_id", "peer_id", "rpc_type"]
    seconds = HistogramMetricFamily("raft_peer_latency_seconds", "Answered calls by duration.", labels=kinds)
    calls = CounterMetricFamily("raft_peer_rpc_total", "Calls by outcome.", labels=[*kinds, "result"])
    for call in latency.call_totals():
        add_histogram(seconds, [node, call.peer_id, call.kind], call.seconds)
        calls.add_metric([node, call.peer_id, call.kind, "success"], call.seconds.count)
        calls.add_metric([node, call.peer_id, call.kind, "error"], call.errors)
    healthy = GaugeMetricFamily(
        "raft_peer_healthy", "1 while a peer is healthy.", labels=["node_id", "peer_id"]
    )
    silence = GaugeMetricFamily(
        "raft_peer_last_contact_seconds",
        "Seconds since a peer last answered, or since it was added.",
        labels=["node_id", "peer_id"],
    )
    errors = GaugeMetricFamily(
        "raft_peer_consecutive_errors", "Failed calls since the last answer.", labels=["node_id", "peer_id"]
    )
    peers = latency.peer_health(now)
    for peer in peers:
        healthy.add_metric([node, peer.peer_id], peer.healthy)
        silence.add_metric([node, peer.peer_id], peer.silent_seconds)
        errors.add_metric([node, peer.peer_id], peer.consecutive_errors)
    well = sum(peer.healthy for peer in peers)
    return [
        seconds,
        calls,
        healthy,
        silence,
        errors,
        gauge("raft_cluster_healthy_peers", "Healthy peers.", well),
        gauge("raft_cluster_unhealthy_peers", "Unhealthy peers.", len(peers) - well),
    ]


def _cluster(status: ClusterStatus, node: str) -> Iterable[Metric]:
    """As this node sees it."""
    seen = Observation.of(status)
    at_risk = not seen.leader or quorum_at_risk(seen.voters, seen.unhealthy)
    return [
        gauge("raft_cluster_has_leader", "1 while this node knows a leader.", bool(seen.leader)),
        gauge("raft_cluster_voters", "Members whose vote counts.", len(seen.voters)),
        gauge(
            "raft_cluster_quorum_at_risk",
            "1 while the loss of one more member would cost the majority, or has.",
            at_risk,
        ),
        gauge("raft_node_is_leader", "1 while this node leads.", status.leader.is_leader, node),
        gauge("raft_node_term", "The term that this node knows.", status.node.term, node),
    ]


def _snapshots(tracker: SnapshotTracker, node: str, now: Instant, *, old_names: bool) -> Iterable[Metric]:
    """Helios' names, then every field that is a number or a boolean: durations in seconds, and with `old_names`
    under their own names as well."""
    report = tracker.report(now)
    total = CounterMetricFamily(
        "raft_snapshot_total", "Snapshots by how they came.", labels=["node_id", "type"]
    )
    total.add_metric([node, "created"], report.total_snapshots_created)
    total.add_metric([node, "received"], report.total_snapshots_received)
    total.add_metric([node, "restored"], report.total_restores)
    operations = ["node_id", "operation"]
    seconds = HistogramMetricFamily(
        "raft_snapshot_duration_seconds", "Snapshot operations by duration.", labels=operations
    )
    add_histogram(seconds, [node, "create"], tracker.creations)
    add_histogram(seconds, [node, "restore"], tracker.restores)
    # A counter would be shown as raft_snapshot_errors_total.
    errors = GaugeMetricFamily("raft_snapshot_errors", "Failed snapshot operations.", labels=operations)
    errors.add_metric([node, "create"], report.failed_creations)
    errors.add_metric([node, "restore"], report.failed_restores)
    return [
        total,
        seconds,
        errors,
        *(
            gauge(f"raft_snapshot_{name}", text, value, node)
            for name, text, value in (
                ("size", "Bytes of the latest snapshot.", report.latest_snapshot_size),
                ("index", "Log index of the latest snapshot.", report.latest_snapshot_index),
                ("term", "Term of the latest snapshot.", report.latest_snapshot_term),
                ("age_seconds", "Age of the latest snapshot.", report.latest_snapshot_age_ms / 1000),
                ("bytes_written", "Bytes of all snapshots.", report.total_bytes_written),
                ("entries_compacted", "Log entries compacted.", report.total_entries_compacted),
                ("on_disk", "Snapshots on disk.", report.snapshots_on_disk),
            )
        ),
        *(
            _field(field, value)
            for field, value in structs.asdict(report).items()
            if isinstance(value, int | float) and (old_names or not field.endswith(_OLD_UNIT))
        ),
        *(
            gauge(
                f"raft_snapshot_{field.removesuffix(_OLD_UNIT)}_seconds",
                f"{field} of GET /api/cluster/snapshot, in seconds.",
                value / 1000,
            )
            for field, value in structs.asdict(report).items()
            if isinstance(value, int | float) and field.endswith(_OLD_UNIT)
        ),
    ]


def _field(field: str, value: float) -> Metric:
    """A field of `GET …/snapshot`. `_count` at its end is a histogram's in a gauge, so it has no type."""
    kind = UnknownMetricFamily if field.endswith("_count") else GaugeMetricFamily
    return kind(f"raft_snapshot_{field}", f"{field} of GET /api/cluster/snapshot.", value=value)


def _hub(counters: HubCounters, ws_clients: int, sse_clients: int, queue_depth: int) -> Iterable[Metric]:
    broadcast = HistogramMetricFamily(
        "heliosd_ws_broadcast_seconds",
        "From the start of a fan-out until the last client had the message written or queued.",
        labels=[],
    )
    add_histogram(broadcast, [], counters.broadcast)
    lag = HistogramMetricFamily(
        "heliosd_loop_lag_seconds", "How long a task that could run waits for its turn.", labels=[]
    )
    add_histogram(lag, [], counters.loop_lag)
    return [
        gauge("heliosd_ws_clients", "Connected WebSocket clients.", ws_clients),
        gauge("heliosd_sse_clients", "Connected event streams.", sse_clients),
        labelled_counters(
            "heliosd_ws_connections_total", "Upgrade requests.", "result", counters.connections
        ),
        labelled_counters("heliosd_ws_messages_total", "Messages that went out.", "type", counters.messages),
        counter("heliosd_ws_bytes_total", "Bytes of frames written.", counters.bytes),
        labelled_counters("heliosd_ws_dropped_total", "Events not delivered.", "reason", counters.dropped),
        broadcast,
        lag,
        gauge("heliosd_ws_queue_depth", "Messages that wait for all clients.", queue_depth),
        labelled_gauges(
            "heliosd_fanout_engine",
            "1 for what writes to clients.",
            "engine",
            {name: int(counters.fanout_engine == name) for name in ("write", "uring")},
        ),
        gauge("heliosd_fanout_threads", "Threads beside the event loop's.", counters.fanout_threads),
    ]


def _alerts(counters: AlertCounters) -> Iterable[Metric]:
    return [
        labelled_counters("heliosd_alerts_fired_total", "Alerts that became due.", "alert", counters.fired),
        labelled_counters(
            "heliosd_alerts_sent_total", "Alerts that a receiver took.", "alert", counters.sent
        ),
        labelled_counters(
            "heliosd_alert_failures_total", "Attempts to send that failed.", "alert", counters.failures
        ),
        labelled_counters(
            "heliosd_alerts_dropped_total", "Alerts that will not be sent.", "reason", counters.dropped
        ),
        counter(
            "heliosd_alert_missed_events_total", "Events that no alert could see.", counters.missed_events
        ),
        labelled_gauges("heliosd_alerts_waiting", "Alerts not sent yet.", "alert", counters.waiting),
        labelled_gauges(
            "heliosd_alerts_holding", "Conditions that hold and were sent.", "alert", counters.holding
        ),
    ]


def _custom(view: MetricView) -> bytes:
    # A counter is rendered as a gauge first: prometheus_client would show it as NAME_total.
    metric = Metric(view.name, view.help, "histogram" if view.type == "histogram" else "gauge")
    metric.samples = list(_samples(view))
    text = _text([metric])
    if view.type != "counter":
        return text
    # The second line is its TYPE: a line break in the help is escaped.
    helped, _, sample = text.split(b"\n", 2)
    return b"\n".join((helped, f"# TYPE {view.name} counter".encode(), sample))


def _samples(view: MetricView) -> Iterator[Sample]:
    if view.type != "histogram":
        yield Sample(view.name, view.labels, view.value)
        return
    # Not HistogramMetricFamily: it leaves out sum and count where a bound is negative.
    assert view.buckets is not UNSET
    assert view.bucket_counts is not UNSET
    assert view.count is not UNSET
    assert view.sum is not UNSET
    for bound, count in zip((*view.buckets, inf), view.bucket_counts, strict=True):
        yield Sample(f"{view.name}_bucket", {**view.labels, "le": bound_text(bound)}, count)
    yield Sample(f"{view.name}_count", view.labels, view.count)
    yield Sample(f"{view.name}_sum", view.labels, view.sum)


def bound_text(bound: float) -> str:
    """A bucket's upper bound without loss and without needless digits: `0.005`, `1`, `+Inf`."""
    return "+Inf" if bound == inf else repr(float(bound)).removesuffix(".0")
