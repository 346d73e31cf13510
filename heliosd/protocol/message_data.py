"""The `data` of every message that the daemon sends, as JSON shapes. `MESSAGES` names them all.

A field that is left out of a message has no value then; none is ever null unless its type says so. Times are RFC
3339 in UTC. docs/protocol.md explains the messages; `/asyncapi.json` is made from these types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.protocol.views.latency import AddressKind, ClusterHealth, LatencyReport
from heliosd.protocol.views.snapshots import SnapshotEvent
from heliosd.protocol.views.status import NodeView, PeerView
from heliosd.protocol.views.uptime import UptimeReport
from heliosd.raft.roles import Role

from .events import Cause, Evidence, PeerEvent
from .history import Refusal

GapReason = Literal["slow_consumer", "too_old"]
"""The client did not read quickly enough; or the events were removed before they came here."""
ErrorCode = Literal["bad_json", "bad_field", "unknown_type", "rate_limited", "expired"]


class StateChangeData(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member's Raft state, or the leader that is known, changed."""

    old_state: Role
    new_state: Role
    term: int
    leader: str
    """The leader's id; "": none is known."""
    member: str
    """The member whose states these are: this node; with etcd the leader that was elected or lost."""
    cause: Cause | UnsetType = UNSET
    """Why the leader before was lost."""
    evidence: Evidence | UnsetType = UNSET
    """What `cause` was concluded from."""
    observed_at: str | UnsetType = UNSET
    """When this node saw it; `timestamp` is when it was logged."""
    terms_unseen: tuple[int, int] | UnsetType = UNSET
    """The first and last term since the state change before of which no leader was seen."""
    leader_name: str | UnsetType = UNSET
    member_name: str | UnsetType = UNSET
    """With etcd: the names beside the ids."""


class PeerChangeData(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member was added or removed, or its health, role or name changed."""

    event_type: PeerEvent
    peer_id: str
    peer_address: str
    address_kind: AddressKind | UnsetType = UNSET
    """With etcd: `client`, or `peer` until the member's address for clients is known."""
    peer_name: str | UnsetType = UNSET
    event: PeerEvent
    """The same as `event_type`, which is what Helios' code sent."""
    address: str
    """The same as `peer_address`."""
    cause: Cause | UnsetType = UNSET
    """Why an unhealthy member does not answer."""
    evidence: Evidence | UnsetType = UNSET
    """What `cause` was concluded from."""


class SnapshotData(SnapshotEvent, frozen=True, kw_only=True):
    """A snapshot was created, received or restored, or that failed."""

    type: Literal["created", "received", "restored", "error"]
    size_bytes: int
    """The same as `size`."""


class StatusData(Struct, frozen=True, kw_only=True):
    """The state of the cluster as this node knows it."""

    node_id: str
    """This node; with etcd the id of its member."""
    state: Role
    """Of this node."""
    term: int
    node: NodeView | UnsetType = UNSET
    """With etcd: this node as in `GET /api/cluster/status`, with what its member reports of itself."""
    commit_index: int
    last_applied: int
    leader: str
    """The leader's id; "": none is known."""
    peers: list[str]
    """The ids of the other members."""
    snapshot_last: int
    """Index of the last entry in the newest snapshot; 0 without one."""
    uptime: str
    """Of this node's process, like `2h15m30s`."""
    clients: int
    """Connected clients, event streams included."""
    peer_details: tuple[PeerView, ...]
    cluster_health: ClusterHealth
    custom_metrics: Mapping[str, MetricView] | UnsetType = UNSET
    """Those that the subscription lets through. Not in `status_update`."""
    as_of_seq: int | UnsetType = UNSET
    """The effects of every event up to this number are included. Not in `status_update`."""
    observed_by: str
    """`node.id` of the daemon that says so."""
    observed_at: str
    """When it looked."""
    stale: bool
    """The data may be out of date: no leader is known, or this node cannot reach it."""
    warnings: tuple[str, ...] | UnsetType = UNSET
    """What an operator should know or change, with the command where there is one."""
    complete: bool | UnsetType = UNSET
    """False before this node knows everything that was answered before its start; then another status follows."""


class UptimeData(UptimeReport, frozen=True, kw_only=True):
    """How long this node has been up: the fields of `GET …/uptime`, and three that Helios sent."""

    current_uptime: str
    total_uptime: str
    total_sessions: int


class WelcomeData(Struct, frozen=True, kw_only=True):
    """The first message of a connection that asked to resume; also sent when the numbering begins anew."""

    client_id: str
    """As in `GET /api/cluster/clients`."""
    epoch: str
    """Names the numbering: `seq` has a meaning only together with it."""
    seq: int
    """The newest event's number; live events have higher ones."""
    oldest_seq: int
    """The oldest number that can be replayed."""
    recovered: bool
    """True: the `replayed` events that follow are all that this client missed."""
    reason: Refusal | None
    """Why nothing was recovered; null if it was."""
    replayed: int
    """How many events follow before the status."""
    expires_at: str
    """When the token ends."""


class GapData(Struct, frozen=True, kw_only=True):
    """Events that this client will not get: all numbers from `from_seq` to `to_seq`. A status follows."""

    from_seq: int
    to_seq: int
    """The first and the last number that will not come."""
    dropped: int
    """How many of them the subscription would have let through; with reason `too_old` at most so many."""
    reason: GapReason


class SubscribedData(Struct, frozen=True):
    """The answer to `subscribe` and `unsubscribe`."""

    active: Mapping[str, bool | dict[str, Any]]
    """The seven topics: on, off, or on with this filter."""


class TokenEndData(Struct, frozen=True):
    """When the connection's token ends."""

    expires_at: str


class ErrorData(Struct, frozen=True):
    """A client's message could not be served."""

    error: str
    """For people."""
    code: ErrorCode
    """For programs."""
    field: str | UnsetType = UNSET
    """The field that is wrong."""


class MessageType(Struct, frozen=True):
    """One type of message from the daemon. `numbered`: it is an event with a `seq`; `answers`: the command types
    whose `id` it repeats."""

    data: Any
    summary: str
    numbered: bool = False
    answers: tuple[str, ...] = ()
    topic: str | None = None
    """The topic of a subscription that lets it through; None: it is sent to everybody."""


MESSAGES: Mapping[str, MessageType] = {
    "welcome": MessageType(WelcomeData, "Resumed, or why not"),
    "status": MessageType(StatusData, "The whole state: what a client starts from", answers=("status",)),
    "state_change": MessageType(
        StateChangeData,
        "A leader was elected or lost, or this node's Raft state changed",
        numbered=True,
        topic="state_changes",
    ),
    "peer_change": MessageType(
        PeerChangeData,
        "A member came, went, or changed its health",
        numbered=True,
        topic="peer_changes",
    ),
    "snapshot": MessageType(
        SnapshotData, "A snapshot was taken or restored", numbered=True, topic="snapshot"
    ),
    "custom_metrics": MessageType(
        dict[str, MetricView | None],
        "With `seq`: metrics were registered, or deleted (null). Without: new values",
        topic="custom_metrics",
    ),
    "status_update": MessageType(
        StatusData, "The state as of now, without the custom metrics", topic="status"
    ),
    "latency": MessageType(LatencyReport, "Latency and health of the peers", topic="latency"),
    "uptime": MessageType(UptimeData, "Uptime, sessions, time in each state", topic="uptime"),
    "gap": MessageType(GapData, "Events that this client will not get"),
    "subscribed": MessageType(
        SubscribedData, "The subscription in force", answers=("subscribe", "unsubscribe")
    ),
    "pong": MessageType(Any, "The data of a `ping`, byte for byte", answers=("ping",)),
    "authenticated": MessageType(TokenEndData, "The newer token is in force", answers=("auth",)),
    "token_expiring": MessageType(TokenEndData, "The token ends soon: send `auth` with a newer one"),
    "error": MessageType(
        ErrorData,
        "A message of the client could not be served",
        answers=("ping", "status", "subscribe", "unsubscribe", "auth"),
    ),
}
"""Every message that a client may be sent, by its `type`."""
