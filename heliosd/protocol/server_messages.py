"""The wire format, outwards: events, values and answers -> JSON bytes, encoded once for all clients.

A text frame holds one JSON object, `{"type","timestamp","seq"?,"id"?,"data"?}`; `client_commands.py` reads the
clients' messages. Keys and types are only ever added, because clients ignore unknown ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, assert_never

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from heliosd.clock import duration_text, rfc3339
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.protocol.views.latency import LatencyReport
from heliosd.protocol.views.status import ClusterStatus
from heliosd.protocol.views.uptime import UptimeReport

from .events import Event, MetricsDefined, PeerChanged, SnapshotTaken, Stamped, StateChanged
from .message import EVENT_TOPICS, Kind, OutgoingMessage
from .message_data import (
    ErrorCode,
    ErrorData,
    GapData,
    GapReason,
    PeerChangeData,
    SnapshotData,
    StateChangeData,
    StatusData,
    SubscribedData,
    TokenEndData,
    UptimeData,
    WelcomeData,
)
from .subscription import NOTHING, Subscription, Topic

ClientId = str | int
T = TypeVar("T")


class _MessageEnvelope(Struct, frozen=True, omit_defaults=True):
    type: str
    timestamp: str
    seq: int | UnsetType = UNSET
    provisional: bool | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    id: ClientId | UnsetType = UNSET
    data: object = UNSET


_encode = msgspec.json.Encoder().encode


def of_event(stamped: Stamped) -> OutgoingMessage:
    """A numbered event, live and in a replay."""
    name, data = _said(stamped.event)
    envelope = _MessageEnvelope(
        name, rfc3339(stamped.at), stamped.seq, reason=_reason(stamped.event), data=data
    )
    payload = _encode(envelope)
    return OutgoingMessage(name, Kind.EVENT, EVENT_TOPICS[name], payload, stamped.seq, stamped.at)


def of_provisional(event: Event, at: float) -> OutgoingMessage:
    """An event that is not in the cluster's log yet, so that it has no number."""
    name, data = _said(event)
    envelope = _MessageEnvelope(name, rfc3339(at), provisional=True, reason=_reason(event), data=data)
    payload = _encode(envelope)
    return OutgoingMessage(name, Kind.EVENT, EVENT_TOPICS[name], payload)


def _reason(event: Event) -> str | UnsetType:
    """Why metrics were deleted. It stands beside `data`, where names of metrics are the keys."""
    return event.reason if isinstance(event, MetricsDefined) and event.reason else UNSET


def _said(event: Event) -> tuple[str, object]:
    """An event's type and data on the wire."""
    match event:
        case StateChanged():
            return "state_change", StateChangeData(
                old_state=event.old_state,
                new_state=event.new_state,
                term=event.term,
                leader=event.leader,
                member=event.member,
                cause=_known(event.cause),
                evidence=_known(event.evidence),
                observed_at=UNSET if event.observed_at is None else rfc3339(event.observed_at),
                terms_unseen=_known(event.terms_unseen),
                leader_name=event.leader_name or UNSET,
                member_name=event.member_name or UNSET,
            )
        case PeerChanged():
            return "peer_change", PeerChangeData(
                event_type=event.event_type,
                peer_id=event.peer_id,
                peer_address=event.peer_address,
                address_kind=_known(event.address_kind),
                peer_name=event.peer_name or UNSET,
                # Helios' documentation has the names above, its code sent these.
                event=event.event_type,
                address=event.peer_address,
                cause=_known(event.cause),
                evidence=_known(event.evidence),
            )
        case SnapshotTaken():
            fields = structs.asdict(event.snapshot)
            return "snapshot", SnapshotData(**fields, size_bytes=event.snapshot.size)
        case MetricsDefined():
            return "custom_metrics", event.metrics
        case _:
            assert_never(event)


def _known(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


def of_metric_values(metrics: Mapping[str, MetricView], at: float) -> OutgoingMessage:
    """Metrics whose values changed, and only those."""
    return _value("custom_metrics", Topic.CUSTOM_METRICS, metrics, at)


def of_latency(report: LatencyReport, at: float) -> OutgoingMessage:
    return _value("latency", Topic.LATENCY, report, at)


def of_uptime(report: UptimeReport, at: float) -> OutgoingMessage:
    """The fields of GET …/uptime, with Helios' `current_uptime`, `total_uptime` and `total_sessions`."""
    data = UptimeData(
        current_uptime=report.current_session.uptime_formatted,
        total_uptime=duration_text(report.historical.total_uptime_seconds),
        total_sessions=report.historical.total_sessions,
        **structs.asdict(report),
    )
    return _value("uptime", Topic.UPTIME, data, at)


def of_status_update(
    status: ClusterStatus, *, snapshot_last: int, uptime: str, clients: int, at: float
) -> OutgoingMessage:
    """The cluster's state, without the custom metrics."""
    data = _status(status, snapshot_last, uptime, clients)
    return _value("status_update", Topic.STATUS, data, at)


def of_status(
    status: ClusterStatus,
    metrics: Mapping[str, MetricView],
    *,
    as_of_seq: int,
    complete: bool = True,
    snapshot_last: int,
    uptime: str,
    clients: int,
    at: float,
) -> OutgoingMessage:
    """The whole state: it includes the effects of every event up to `as_of_seq`."""
    data = _status(status, snapshot_last, uptime, clients, metrics, as_of_seq)
    if not complete:
        data = structs.replace(data, stale=True, complete=False)
    payload = _encode(_MessageEnvelope("status", rfc3339(at), data=data))
    return OutgoingMessage("status", Kind.STATUS, NOTHING, payload)


def answering(status: OutgoingMessage, client_id: ClientId) -> OutgoingMessage:
    """The same status as the answer to the question with this id."""
    head, data, rest = status.payload.partition(b',"data":')
    payload = b"".join([head, b',"id":', _encode(client_id), data, rest])
    return OutgoingMessage("status", Kind.STATUS, NOTHING, payload)


def of_pong(at: float, data: object = UNSET, client_id: ClientId | UnsetType = UNSET) -> OutgoingMessage:
    """The answer to `{"type":"ping"}`, with the ping's data."""
    return _control("pong", at, data, client_id)


def of_subscription(
    subscription: Subscription, at: float, client_id: ClientId | UnsetType = UNSET
) -> OutgoingMessage:
    """The answer to subscribe and unsubscribe: the subscription in force."""
    return _control("subscribed", at, SubscribedData(subscription.active()), client_id)


def of_error(
    error: str,
    code: ErrorCode,
    at: float,
    *,
    field: str | None = None,
    client_id: ClientId | UnsetType = UNSET,
) -> OutgoingMessage:
    """A client's message could not be served. `code` is for programs, `error` for people."""
    data = ErrorData(error, code, UNSET if field is None else field)
    return _control("error", at, data, client_id)


def of_welcome(welcome: WelcomeData, at: float) -> OutgoingMessage:
    """The first message of a connection that asked to resume; sent to every client when the epoch changes."""
    return _boundary("welcome", at, welcome)


def of_gap(
    from_seq: int, to_seq: int, dropped: int, at: float, reason: GapReason = "slow_consumer"
) -> OutgoingMessage:
    """Events that a client will not get: all numbers from `from_seq` to `to_seq`; `status` follows."""
    data = GapData(from_seq=from_seq, to_seq=to_seq, dropped=dropped, reason=reason)
    return _boundary("gap", at, data)


def of_token_expiring(expires_at: float, at: float) -> OutgoingMessage:
    return _control("token_expiring", at, TokenEndData(rfc3339(expires_at)), UNSET)


def of_authenticated(
    expires_at: float, at: float, client_id: ClientId | UnsetType = UNSET
) -> OutgoingMessage:
    """The answer to `auth`: the connection may stay open until `expires_at`."""
    return _control("authenticated", at, TokenEndData(rfc3339(expires_at)), client_id)


def _value(name: str, topic: Topic, data: object, at: float) -> OutgoingMessage:
    payload = _encode(_MessageEnvelope(name, rfc3339(at), data=data))
    return OutgoingMessage(name, Kind.VALUE, topic, payload)


def _boundary(name: str, at: float, data: object) -> OutgoingMessage:
    return OutgoingMessage(
        name, Kind.BOUNDARY, NOTHING, _encode(_MessageEnvelope(name, rfc3339(at), data=data))
    )


def _control(name: str, at: float, data: object, client_id: ClientId | UnsetType) -> OutgoingMessage:
    payload = _encode(_MessageEnvelope(name, rfc3339(at), id=client_id, data=data))
    return OutgoingMessage(name, Kind.CONTROL, NOTHING, payload)


def _status(
    status: ClusterStatus,
    snapshot_last: int,
    uptime: str,
    clients: int,
    metrics: Mapping[str, MetricView] | UnsetType = UNSET,
    as_of_seq: int | UnsetType = UNSET,
) -> StatusData:
    return StatusData(
        node_id=status.node.id,
        state=status.node.state,
        term=status.node.term,
        node=UNSET if status.node.name is UNSET else status.node,
        commit_index=status.indices.commit_index,
        last_applied=status.indices.applied_index,
        leader=status.leader.id,
        peers=[peer.id for peer in status.peers],
        snapshot_last=snapshot_last,
        uptime=uptime,
        clients=clients,
        peer_details=status.peers,
        cluster_health=status.cluster_health,
        custom_metrics=metrics,
        as_of_seq=as_of_seq,
        observed_by=status.observed_by,
        warnings=status.warnings,
        observed_at=rfc3339(status.observed_at),
        stale=status.stale,
    )
