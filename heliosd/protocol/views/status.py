"""How a cluster stands, as one value, and the JSON that shows it.

The shapes are those of `GET /api/cluster/status`; keys and their order are part of the contract.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from heliosd.raft.roles import Role

from .latency import ClusterHealth, PeerLatency


class NodeView(Struct, frozen=True):
    """This node. With etcd `id` is its member's, or the configured one where no member bears that."""

    id: str
    state: Role
    term: int
    name: str | UnsetType = UNSET
    """Here and below: the member's name, with etcd only, where ids say little."""


class LeaderView(Struct, frozen=True):
    """`id` "" when no leader is known; `is_leader` says whether it is this node."""

    id: str = ""
    address: str = ""
    is_leader: bool = False
    name: str | UnsetType = UNSET


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
    match_index: int | UnsetType = UNSET
    next_index: int | UnsetType = UNSET
    latency: PeerLatency


class PeerState(Struct, frozen=True):
    """A peer in `GET …/peers`."""

    id: str
    address: str
    state: Role
    name: str | UnsetType = UNSET


class ObserverView(Struct, frozen=True):
    """A heliosd that is present in a cluster of etcd."""

    id: str
    version: str
    since: str
    """RFC 3339."""


class ClusterStatus(Struct, frozen=True, kw_only=True):
    """What this node knows of its cluster at one moment."""

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
    """True when what is shown may have been overtaken: no leader is known, or this node is cut off from it."""
    observers: tuple[ObserverView, ...] | UnsetType = UNSET
    """With etcd: the heliosd that are present, by id."""
