"""Every route of the REST API in one table, from which the app and its tests are made."""

from __future__ import annotations

from heliosd.config.permissions import ADMIN, READ, WATCH, WRITE
from heliosd.protocol.views.custom_metrics import CustomMetricsReport, MetricView
from heliosd.protocol.views.latency import LatencyMatrixReport, LatencyReport, PeerReport
from heliosd.protocol.views.simulation import FaultChange, SimulationReport
from heliosd.protocol.views.snapshots import SnapshotHistory, SnapshotReport
from heliosd.protocol.views.uptime import UptimeHistory, UptimeReport

from .route import Route, never
from .routes import auth, clients, cluster, custom_metrics, events, peers, permits, service, simulation
from .routes.cluster import MessageBody


def _auth(path: str) -> tuple[str, ...]:
    return (f"/api/auth{path}", f"/api/v1/auth{path}")


def _cluster(*paths: str) -> tuple[str, ...]:
    return tuple(f"{root}{path}" for path in paths for root in ("/api/cluster", "/admin/cluster"))


_STATUS = _cluster("/status")
_PEERS = _cluster("/peers")
_METRICS = _cluster("/custom-metrics", "/metrics")
_METRICS_RESET = _cluster("/custom-metrics/reset", "/metrics/reset")
_SNAPSHOT = _cluster("/snapshot")
_SIMULATION = _cluster("/simulation")
_CLIENTS = _cluster("/clients")
_PERMITS = _cluster("/permits")

# fmt: off
ROUTES: tuple[Route, ...] = (
    Route(paths=_auth("/login"), method="POST", view=auth.log_in, needs_token=never, writes=False,
          body=auth.Credentials, max_body_bytes=4096, answer=auth.SessionBody,
          summary="Log in with a name and a password"),
    Route(paths=_auth("/refresh"), method="POST", view=auth.refresh,
          answer=auth.SessionBody,
          summary="A new token for the bearer of one that still holds"),
    Route(paths=_auth("/logout"), method="POST", view=auth.log_out,
          body=auth.Logout, answer=auth.LogoutDone, audited=True,
          summary="Revoke this token, or with admin:* another"),
    Route(paths=_auth("/session"), method="POST", view=auth.begin_session,
          answer=auth.Me,
          summary="Put this token into the cookie of a page's session"),
    Route(paths=_auth("/session"), method="DELETE", view=auth.end_session,
          answer=auth.LogoutDone, audited=True,
          summary="End the session: revoke its token"),
    Route(paths=_auth("/ticket"), method="POST", view=auth.issue_ticket, status=201,
          answer=auth.TicketIssued,
          summary="A ticket, which replaces this token in one URL, for 30 s"),
    Route(paths=_auth("/me"), method="GET", view=auth.show_me,
          answer=auth.Me,
          summary="Whose this token is, and with which rights"),

    Route(paths=_STATUS, method="GET", view=cluster.show_status, permission=READ,
          answer=cluster.StatusReport,
          summary="The cluster as this node sees it"),
    Route(paths=_PEERS, method="GET", view=peers.list_peers, permission=READ,
          answer=peers.PeerList,
          summary="The other members"),
    Route(paths=_PEERS, method="POST", view=peers.add_peer, permission=ADMIN, status=201,
          body=peers.NewPeer, answer=peers.PeerAdded,
          keyed="here", summary="Add a member"),
    Route(paths=_PEERS, method="DELETE", view=peers.remove_peer, permission=ADMIN,
          query=peers.ById, body=peers.ById, answer=peers.PeerRemoved,
          keyed="here", summary="Remove a member"),
    Route(paths=_cluster("/latency"), method="GET", view=cluster.show_latency, permission=READ,
          query=cluster.OfPeer, answer=(LatencyReport, PeerReport),
          summary="Latency and health of every peer, or of one"),
    Route(paths=_cluster("/latency/matrix"), method="GET", view=cluster.show_latency_matrix, permission=READ,
          answer=LatencyMatrixReport,
          summary="What the members measured to each other"),
    Route(paths=_cluster("/latency/reset"), method="POST", view=cluster.reset_latency, permission=ADMIN,
          answer=MessageBody,
          keyed="here", summary="Forget all latency samples"),
    Route(paths=_cluster("/uptime"), method="GET", view=cluster.show_uptime, permission=READ,
          answer=UptimeReport,
          summary="How long this node has been up, and in which states"),
    Route(paths=_cluster("/uptime/history"), method="GET", view=cluster.show_uptime_history, permission=READ,
          query=cluster.UptimeSpan, answer=UptimeHistory,
          summary="The newest uptime events and sessions"),
    Route(paths=_cluster("/uptime/reset"), method="POST", view=cluster.reset_uptime, permission=ADMIN,
          answer=MessageBody,
          keyed="here", summary="Forget the uptime history"),
    Route(paths=_SNAPSHOT, method="GET", view=cluster.show_snapshot, permission=READ,
          answer=SnapshotReport,
          summary="Snapshot statistics"),
    Route(paths=_SNAPSHOT, method="POST", view=cluster.take_snapshot, permission=ADMIN, status=201,
          answer=cluster.SnapshotMade,
          keyed="here", summary="Take a snapshot now"),
    Route(paths=_cluster("/snapshot/history"), method="GET", view=cluster.show_snapshot_history,
          permission=READ, query=cluster.SnapshotSpan, answer=SnapshotHistory,
          summary="The newest snapshot events and snapshots"),
    Route(paths=_cluster("/snapshot/reset"), method="POST", view=cluster.reset_snapshots, permission=ADMIN,
          answer=MessageBody,
          keyed="here", summary="Forget the snapshot statistics; the snapshot stays"),
    Route(paths=_METRICS, method="GET", view=custom_metrics.show_metrics, permission=READ,
          query=custom_metrics.ByName, answer=(CustomMetricsReport, MetricView),
          summary="All custom metrics, or one"),
    Route(paths=_METRICS, method="POST", view=custom_metrics.register_metric, permission=WRITE, status=201,
          body=custom_metrics.NewMetric, answer=custom_metrics.Named,
          keyed="log", summary="Register a metric"),
    Route(paths=_METRICS, method="PUT", view=custom_metrics.update_metric, permission=WRITE,
          body=custom_metrics.MetricChange, answer=custom_metrics.Named,
          keyed="log", summary="Set, observe or count"),
    Route(paths=_METRICS, method="DELETE", view=custom_metrics.delete_metric, permission=WRITE,
          query=custom_metrics.ByName, body=custom_metrics.ByName, answer=custom_metrics.Named,
          keyed="log", summary="Delete a metric"),
    Route(paths=_METRICS_RESET, method="POST", view=custom_metrics.reset_metrics, permission=ADMIN,
          answer=MessageBody,
          keyed="log", summary="Delete all custom metrics"),
    Route(paths=_cluster("/leadership/transfer"), method="POST", view=cluster.transfer_leadership,
          permission=ADMIN, body=cluster.Transfer, answer=cluster.NewLeader,
          keyed="here", summary="Hand leadership to another member"),
    Route(paths=_SIMULATION, method="GET", view=simulation.show_simulation, permission=READ,
          answer=SimulationReport,
          summary="The faults of the simulated cluster, and its members"),
    Route(paths=_SIMULATION, method="PUT", view=simulation.change_simulation, permission=ADMIN,
          body=FaultChange, answer=SimulationReport,
          summary="Replace the faults that are named"),
    Route(paths=_PERMITS, method="GET", view=permits.list_permits, permission=READ,
          answer=permits.PermitList,
          summary="The permit to stop a member, if one is out"),
    Route(paths=_PERMITS, method="POST", view=permits.grant_permit, permission=ADMIN, status=201,
          body=permits.WantedPermit, answer=permits.PermitAnswer,
          summary="A permit to stop a member, if a quorum is left without it"),
    Route(paths=_PERMITS, method="PUT", view=permits.renew_permit, permission=ADMIN,
          body=permits.Renewal, answer=permits.PermitAnswer,
          summary="Let a permit last longer"),
    Route(paths=_PERMITS, method="DELETE", view=permits.end_permit, permission=ADMIN,
          query=peers.ById, body=peers.ById, answer=permits.PermitAnswer,
          summary="Give a permit back"),
    Route(paths=_CLIENTS, method="GET", view=clients.list_clients, permission=READ, costly=True,
          answer=clients.ClientList,
          summary="Who is connected"),
    Route(paths=_CLIENTS, method="DELETE", view=clients.disconnect_client, permission=ADMIN,
          query=peers.ById, body=peers.ById, answer=clients.ClientGone,
          summary="Disconnect a client"),

    Route(paths=_cluster("/events"), method="GET", view=events.stream_events, permission=WATCH,
          token_in_query=True, query=events.StreamQuery, answer="text/event-stream",
          summary="The WebSocket's messages as server-sent events"),
    Route(paths=_cluster("/history"), method="GET", view=events.show_history, permission=READ,
          query=events.Span, answer=events.HistoryPageBody, other_answers={410: events.HistoryGone},
          summary="The events that are kept, page by page"),

    Route(paths=("/healthz",), method="GET", view=service.show_health, needs_token=never,
          answer=service.Health,
          summary="The process lives"),
    Route(paths=("/readyz",), method="GET", view=service.show_readiness, needs_token=never,
          answer=service.ReadinessBody, other_answers={503: service.ReadinessBody},
          summary="A read here shows every write answered before"),
    Route(paths=("/metrics", "/admin/metrics"), method="GET", view=service.show_prometheus, permission=READ,
          needs_token=service.metrics_need_token, answer="text/plain", costly=True,
          summary="Everything counted, for Prometheus"),
    Route(paths=("/openapi.json",), method="GET", view=service.show_openapi, needs_token=never,
          answer="application/json", summary="OpenAPI 3.1 of this API"),
    Route(paths=("/asyncapi.json",), method="GET", view=service.show_asyncapi, needs_token=never,
          answer="application/json", summary="AsyncAPI 3.0 of the messages on /ws/cluster"),
    Route(paths=("/docs",), method="GET", view=service.show_api_docs, needs_token=never,
          answer="text/html", summary="Both, to read"),
    Route(paths=("/",), method="GET", view=service.show_dashboard, needs_token=never,
          answer="text/html",
          summary="The dashboard"),
    Route(paths=("/static/{name}",), method="GET", view=service.show_static, needs_token=never,
          answer="*/*",
          summary="The dashboard's files"),
)
# fmt: on
