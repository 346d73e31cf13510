"""One example of each message, made by the functions that make the real ones."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Struct, structs

from heliosd.protocol import server_messages as make
from heliosd.protocol.events import Event, MetricsDefined, PeerChanged, SnapshotTaken, Stamped, StateChanged
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.message_data import WelcomeData
from heliosd.protocol.subscription import Subscription
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.protocol.views.latency import (
    ClusterHealth,
    HealthSummary,
    KindStats,
    LatencyReport,
    PeerLatency,
    PeerReport,
    Stats,
)
from heliosd.protocol.views.snapshots import SnapshotEvent
from heliosd.protocol.views.status import ClusterStatus, Indices, LeaderView, NodeView, PeerView
from heliosd.protocol.views.uptime import CurrentSession, Historical, Leadership, StateTime, UptimeReport

T = TypeVar("T", bound=Struct)

TIME = "2026-11-28T03:00:00.000000Z"
AT = datetime.fromisoformat(TIME).timestamp()
METRIC = MetricView(
    name="jobs_waiting",
    type="gauge",
    help="Jobs that wait",
    labels={"team": "a"},
    value=17,
    created_at=TIME,
    updated_at=TIME,
)
HISTOGRAM = MetricView(
    name="job_seconds",
    type="histogram",
    help="",
    labels={},
    value=3,
    buckets=(0.1, 1, 10),
    bucket_counts=(1, 2, 3, 3),
    count=3,
    sum=4.25,
    created_at=TIME,
    updated_at=TIME,
)
_SAMPLES: dict[object, object] = {int: 12, float: 1.5, str: TIME, bool: True}


def filled(kind: type[T], **given: Any) -> T:
    """A value of this type, with a plausible one in every field that is needed and not given."""
    return kind(
        **{
            part.name: _SAMPLES[part.type]
            for part in structs.fields(kind)
            if part.required and part.name not in given
        },
        **given,
    )


def status() -> ClusterStatus:
    return ClusterStatus(
        node=NodeView(id="node-1", state="Follower", term=3),
        leader=LeaderView(id="node-2", address="127.0.0.1:7001"),
        indices=Indices(last_log=12, last_log_term=3, commit_index=12, applied_index=12),
        peers=(
            PeerView(id="node-2", address="127.0.0.1:7001", latency=latency(), state="Leader", voter=True),
            PeerView(id="node-3", address="127.0.0.1:7002", latency=latency(), state="Follower", voter=True),
        ),
        peer_states=(),
        cluster_health=ClusterHealth(
            healthy_peers=2,
            unhealthy_peers=0,
            total_peers=2,
            avg_cluster_latency_ms=2.1,
            max_cluster_latency_ms=3.4,
            cluster_error_rate=0.0,
        ),
        observed_by="node-1",
        observed_at=AT,
        stale=False,
    )


def latency() -> PeerLatency:
    return filled(
        PeerLatency,
        sample_count=100,
        error_count=0,
        error_rate=0.0,
        last_contact_unix=int(AT),
        consecutive_errors=0,
    )


def latency_report() -> LatencyReport:
    stats = filled(Stats, count=100, error_count=0)
    kinds = {"append_entries": stats, "request_vote": stats, "install_snapshot": stats, "probe": stats}
    peer = filled(
        PeerReport,
        peer_id="node-2",
        address="127.0.0.1:7001",
        **kinds,
        aggregated=stats,
        last_contact=TIME,
        last_contact_unix=int(AT),
        consecutive_errors=0,
    )
    return LatencyReport(
        peers={"node-2": peer},
        aggregated=filled(KindStats, count=100, error_count=0, **kinds),
        health_summary=HealthSummary(healthy=1, unhealthy=0, total=1),
    )


def uptime_report() -> UptimeReport:
    return UptimeReport(
        node_id="node-1",
        current_session=filled(
            CurrentSession,
            uptime_seconds=8130,
            uptime_formatted="2h15m30s",
            current_state="Follower",
            uptime_ms=8_130_000,
        ),
        historical=filled(Historical, total_sessions=2, total_uptime_seconds=90_000),
        state_time=filled(StateTime, leadership_ratio=0.25),
        leadership=filled(Leadership, current_term=3),
        first_seen=TIME,
        last_event=TIME,
    )


def events() -> Iterable[tuple[str, Event]]:
    """What each shows, and the event."""
    yield (
        "the leader was lost",
        StateChanged(
            old_state="Follower",
            new_state="Candidate",
            term=2,
            leader="",
            member="node-1",
            cause="stopped",
            evidence={"last_answer_ms": 612},
            observed_at=AT,
        ),
    )
    yield (
        "with etcd",
        StateChanged(
            old_state="Follower",
            new_state="Leader",
            term=7,
            leader="bf2ec62d12374940",
            member="bf2ec62d12374940",
            observed_at=AT,
            terms_unseen=(5, 6),
            leader_name="m1",
            member_name="m1",
        ),
    )
    yield "", PeerChanged(event_type="added", peer_id="node-4", peer_address="127.0.0.1:7003")
    yield (
        "a peer does not answer",
        PeerChanged(
            event_type="unhealthy",
            peer_id="node-3",
            peer_address="127.0.0.1:7002",
            cause="unreachable",
            evidence={"last_answer_ms": 1204, "members_reached": 1, "quorum": 2},
        ),
    )
    yield (
        "",
        SnapshotTaken(
            snapshot=filled(
                SnapshotEvent,
                type="created",
                snapshot_id="3-12",
                index=12,
                term=3,
                size=4096,
                duration_ms=8.5,
            )
        ),
    )
    yield "registered", MetricsDefined(metrics={"jobs_waiting": METRIC, "job_seconds": HISTOGRAM})
    yield "its `ttl` has passed", MetricsDefined(metrics={"jobs_waiting": None}, reason="expired")


def messages() -> Iterable[tuple[str, OutgoingMessage]]:
    """What is particular about each, and the message."""
    for recovered in (True, False):
        yield (
            "resumed" if recovered else "not resumed",
            make.of_welcome(
                WelcomeData(
                    client_id="9f1c22ab0d3e4f56",
                    epoch="wT3kQm2x",
                    seq=46,
                    oldest_seq=1 if recovered else 45,
                    recovered=recovered,
                    reason=None if recovered else "too_old",
                    replayed=3 if recovered else 0,
                    expires_at="2026-11-28T11:00:00.000000Z",
                ),
                AT,
            ),
        )
    common: dict[str, Any] = {"snapshot_last": 12, "uptime": "2h15m30s", "clients": 3, "at": AT}
    yield (
        "answer to one with an `id`",
        make.answering(make.of_status(status(), {"jobs_waiting": METRIC}, as_of_seq=46, **common), 7),
    )
    yield "", make.of_status_update(status(), **common)
    for seq, (note, event) in enumerate(events(), start=42):
        yield note, make.of_event(Stamped(seq, AT, event))
    yield (
        "provisional",
        make.of_provisional(
            StateChanged(
                old_state="Leader",
                new_state="Unknown",
                term=7,
                leader="",
                member="bf2ec62d12374940",
                observed_at=AT,
            ),
            AT,
        ),
    )
    yield "values", make.of_metric_values({"jobs_waiting": METRIC}, AT)
    yield "", make.of_latency(latency_report(), AT)
    yield "", make.of_uptime(uptime_report(), AT)
    yield "", make.of_gap(258, 513, 256, AT)
    yield "", make.of_token_expiring(AT + 60, AT)
    yield "", make.of_authenticated(AT + 28_800, AT, "renew")
    yield "", make.of_pong(AT, {"any": ["JSON"]}, 7)
    wanted = Subscription.parse({"peer_changes": {"peers": ["node-*"]}, "status": {"min_interval": 10}})
    yield "", make.of_subscription(wanted, AT, 3)
    yield "", make.of_error("unknown topic 'x'; known are …", "bad_field", AT, field="data.x", client_id=3)
