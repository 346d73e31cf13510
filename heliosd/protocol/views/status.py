"""The state of a cluster as one value, and its JSON shapes in `GET /api/cluster/status`.

Keys and their order are part of the contract.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from heliosd.raft.roles import Role

from .latency import AddressKind, ClusterHealth, PeerLatency


class NodeView(Struct, frozen=True):
    """This node. With etcd `id` is its member's id, or the configured id if no member has it."""

    id: str
    state: Role
    term: int
    name: str | UnsetType = UNSET
    """Here and below: the member's name, with etcd only."""
    version: str | UnsetType = UNSET
    """With etcd, here and in `PeerView`, where the member reports it: its version, ..."""
    db_size_bytes: int | UnsetType = UNSET
    db_quota_bytes: int | UnsetType = UNSET
    """... the size of its database and the quota for it, ..."""
    alarms: tuple[str, ...] | UnsetType = UNSET
    """... and the alarms that are raised for it, such as NOSPACE."""
    voter: bool | UnsetType = UNSET
    """With etcd, where this node is a member: false for a learner, also while it is down."""
    healthy: bool | UnsetType = UNSET
    """Likewise: whether the member answers this node, as `connection_healthy` says it of a peer."""


class LeaderView(Struct, frozen=True):
    """`id` "" when no leader is known; `is_leader` says whether it is this node."""

    id: str = ""
    address: str = ""
    is_leader: bool = False
    name: str | UnsetType = UNSET
    address_kind: AddressKind | UnsetType = UNSET


class Indices(Struct, frozen=True):
    last_log: int
    last_log_term: int
    commit_index: int
    applied_index: int


class PeerView(Struct, frozen=True, kw_only=True):
    """A peer in `status`. `match_index` and `next_index` stand only while this node leads a simulated cluster."""

    id: str
    name: str | UnsetType = UNSET
    address: str
    address_kind: AddressKind | UnsetType = UNSET
    match_index: int | UnsetType = UNSET
    next_index: int | UnsetType = UNSET
    latency: PeerLatency
    version: str | UnsetType = UNSET
    db_size_bytes: int | UnsetType = UNSET
    db_quota_bytes: int | UnsetType = UNSET
    alarms: tuple[str, ...] | UnsetType = UNSET
    state: Role | UnsetType = UNSET
    """As in `GET …/peers`."""
    voter: bool | UnsetType = UNSET
    """False for a learner, also while it is down."""
    applied_index: int | UnsetType = UNSET
    """The last entry that it has applied, as far as this node knows; behind the commit index, it lags."""


class PeerState(Struct, frozen=True):
    """A peer in `GET …/peers`."""

    id: str
    address: str
    state: Role
    name: str | UnsetType = UNSET
    address_kind: AddressKind | UnsetType = UNSET


class ObserverView(Struct, frozen=True):
    """A heliosd that observes the same etcd cluster."""

    id: str
    version: str
    since: str
    """RFC 3339."""
    url: str | UnsetType = UNSET
    """Of its dashboard, where it is configured."""


class ClusterStatus(Struct, frozen=True, kw_only=True):
    """The cluster as this node knows it at one moment."""

    node: NodeView
    leader: LeaderView
    indices: Indices
    peers: tuple[PeerView, ...]
    peer_states: tuple[PeerState, ...]
    """The same peers in the same order, with their states."""
    cluster_health: ClusterHealth
    observed_by: str
    observed_at: float
    """Unix seconds."""
    stale: bool
    """True if the data may be out of date: no leader is known, or this node cannot reach it."""
    warnings: tuple[str, ...] | UnsetType = UNSET
    """What an operator should know or change, with the command where there is one; left out if there is nothing."""
    observers: tuple[ObserverView, ...] | UnsetType = UNSET
    """With etcd: the heliosd that observe the cluster, by id."""
