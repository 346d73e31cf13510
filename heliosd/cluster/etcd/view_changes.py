"""The changes that `ClusterView.look` returns."""

from __future__ import annotations

from msgspec import Struct

from heliosd.cluster.latency import HealthChanged
from heliosd.raft.roles import Role

from .election import LeaderElected, LeaderLost


class OwnStateChanged(Struct, frozen=True):
    """This node's own member changed its state, its term or its leader; recorded in the uptime."""

    old: Role
    new: Role
    term: int
    leader: str


class MemberRestarted(Struct, frozen=True):
    """The member's process ended, and another one has taken its place."""

    member: str


class OtherCluster(Struct, frozen=True):
    """Another cluster answers now; everything about the one before is forgotten."""

    cluster_id: str


ViewChange = LeaderElected | LeaderLost | HealthChanged | MemberRestarted | OwnStateChanged | OtherCluster
