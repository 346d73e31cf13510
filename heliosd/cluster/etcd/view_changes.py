"""The changes that `ClusterView.look` returns."""

from __future__ import annotations

from dataclasses import dataclass

from heliosd.cluster.latency import HealthChanged
from heliosd.raft.roles import Role

from .election import LeaderElected, LeaderLost


@dataclass(frozen=True, slots=True)
class OwnStateChanged:
    """This node's own member changed its state, its term or its leader; recorded in the uptime."""

    old: Role
    new: Role
    term: int
    leader: str


@dataclass(frozen=True, slots=True)
class MemberRestarted:
    """The member's process ended, and another one has taken its place."""

    member: str


@dataclass(frozen=True, slots=True)
class OtherCluster:
    """Another cluster answers now; everything about the one before is forgotten."""

    cluster_id: str


ViewChange = LeaderElected | LeaderLost | HealthChanged | MemberRestarted | OwnStateChanged | OtherCluster
