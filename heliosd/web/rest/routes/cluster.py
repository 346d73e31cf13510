"""The state of the cluster: status, latency, uptime, snapshots, and transfer of leadership."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from heliosd.clock import rfc3339
from heliosd.config.addresses import member_id
from heliosd.protocol.views.custom_metrics import CustomMetricsReport
from heliosd.protocol.views.latency import ClusterHealth
from heliosd.protocol.views.snapshots import SnapshotRecord, SnapshotReport
from heliosd.protocol.views.status import Indices, LeaderView, NodeView, ObserverView, PeerView
from heliosd.protocol.views.uptime import UptimeStats
from heliosd.web.rest.arguments import checked
from heliosd.web.rest.route import Answer, Call, Nothing

SESSION_IDS_SHOWN = 10


class MessageBody(Struct, frozen=True):
    message: str


class Sessions(Struct, frozen=True):
    """The connected WebSocket clients, with at most 10 of their ids."""

    active_count: int
    session_ids: tuple[str, ...]


class TlsView(Struct, frozen=True):
    """`verify_peer` is false: clients authenticate by tokens, not certificates."""

    enabled: bool
    verify_peer: bool = False


class StatusReport(Struct, frozen=True, kw_only=True):
    """`GET …/status`; keys and their order are the contract's."""

    node: NodeView
    leader: LeaderView
    indices: Indices
    peers: tuple[PeerView, ...]
    cluster_health: ClusterHealth
    sessions: Sessions
    tls: TlsView
    uptime: str
    uptime_stats: UptimeStats
    snapshot: SnapshotReport
    custom_metrics: CustomMetricsReport
    observed_by: str
    observed_at: str
    stale: bool
    warnings: tuple[str, ...] | UnsetType = UNSET
    observers: tuple[ObserverView, ...] | UnsetType = UNSET


class OfPeer(Struct, frozen=True):
    peer_id: str | UnsetType = UNSET


MAX_EVENTS = 1000
MAX_ENTRIES = 100
"""Of sessions and snapshots."""


class UptimeSpan(Struct, frozen=True):
    """How many of the newest to show; a number beyond 1 to 1,000 or 1 to 100 counts as the nearest in range."""

    events: int = 100
    sessions: int = 10


class SnapshotSpan(Struct, frozen=True):
    """As `UptimeSpan`."""

    events: int = 100
    snapshots: int = 10


class SnapshotMade(Struct, frozen=True):
    """`snapshot` is the newest there is, also when nothing had changed since it was made."""

    message: str
    snapshot: SnapshotRecord


class Transfer(Struct, frozen=True, forbid_unknown_fields=True):
    target: str | UnsetType = UNSET


class NewLeader(Struct, frozen=True):
    leader: str


async def show_status(call: Call[Nothing, Nothing]) -> Answer:
    backend, roster = call.services.backend, call.services.roster
    status = backend.status()
    return Answer(
        body=StatusReport(
            node=status.node,
            leader=status.leader,
            indices=status.indices,
            peers=status.peers,
            cluster_health=status.cluster_health,
            sessions=Sessions(roster.count("websocket"), tuple(roster.ids("websocket", SESSION_IDS_SHOWN))),
            tls=TlsView(call.services.settings.current.server.tls_cert is not None),
            uptime=backend.uptime.text(call.now),
            uptime_stats=backend.uptime.stats(call.now),
            snapshot=backend.snapshots.report(call.now),
            custom_metrics=backend.metrics.report(),
            observed_by=status.observed_by,
            observed_at=rfc3339(status.observed_at),
            stale=status.stale,
            warnings=status.warnings,
            observers=status.observers,
        )
    )


async def show_latency(call: Call[OfPeer, Nothing]) -> Answer:
    latency = call.services.backend.latency
    if call.query.peer_id is UNSET:
        return Answer(body=latency.report(call.now))
    return Answer(body=latency.peer_report(call.query.peer_id, call.now))


async def show_latency_matrix(call: Call[Nothing, Nothing]) -> Answer:
    return Answer(body=call.services.backend.latency.matrix.report(call.now))


async def reset_latency(call: Call[Nothing, Nothing]) -> Answer:
    call.services.backend.latency.reset()
    return Answer(body=MessageBody("Peer latency metrics reset successfully"))


async def show_uptime(call: Call[Nothing, Nothing]) -> Answer:
    return Answer(body=call.services.backend.uptime.report(call.now))


async def show_uptime_history(call: Call[UptimeSpan, Nothing]) -> Answer:
    events, sessions = _within(call.query.events, MAX_EVENTS), _within(call.query.sessions, MAX_ENTRIES)
    return Answer(body=call.services.backend.uptime.history(call.now, events=events, sessions=sessions))


async def reset_uptime(call: Call[Nothing, Nothing]) -> Answer:
    await call.services.backend.reset_uptime()
    return Answer(body=MessageBody("Uptime history reset successfully"))


async def show_snapshot(call: Call[Nothing, Nothing]) -> Answer:
    return Answer(body=call.services.backend.snapshots.report(call.now))


async def take_snapshot(call: Call[Nothing, Nothing]) -> Answer:
    record = await call.services.backend.take_snapshot()
    return Answer(status=201, body=SnapshotMade("Snapshot created successfully", record))


async def show_snapshot_history(call: Call[SnapshotSpan, Nothing]) -> Answer:
    events, snapshots = _within(call.query.events, MAX_EVENTS), _within(call.query.snapshots, MAX_ENTRIES)
    return Answer(body=call.services.backend.snapshots.history(events=events, snapshots=snapshots))


def _within(number: int, most: int) -> int:
    return max(1, min(number, most))


async def reset_snapshots(call: Call[Nothing, Nothing]) -> Answer:
    await call.services.backend.reset_snapshots()
    return Answer(body=MessageBody("Snapshot statistics reset successfully"))


async def transfer_leadership(call: Call[Nothing, Transfer]) -> Answer:
    target = None if call.body.target is UNSET else checked(member_id, call.body.target, "target")
    return Answer(body=NewLeader(await call.services.backend.transfer_leadership(target)))
