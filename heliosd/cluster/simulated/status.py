"""The status of a simulated cluster, as seen by its local member."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET

from heliosd.clock import Instant
from heliosd.cluster.latency import LatencyTracker
from heliosd.protocol.events import Cause
from heliosd.protocol.views.status import ClusterStatus, Indices, LeaderView, NodeView, PeerState, PeerView
from heliosd.raft.quorum import majority
from heliosd.raft.roles import Role
from heliosd.raft.simulation.cluster import SimulatedCluster

from .bootstrap import TICKS_PER_MS

SLOW_SHARE = 10
"""A latency is worth showing if less than so many times it fits into the timeout that it may exceed."""


def role_of(cluster: SimulatedCluster, name: str) -> Role:
    """The state in which a member is shown."""
    member = cluster.members.get(name)
    if member is None:
        return "Unknown"
    if not member.alive:
        return "Down"
    return "Learner" if member.raft.is_learner else member.raft.role


def cause_of_loss(cluster: SimulatedCluster, node: str, leader: str, *, handed_over: bool) -> Cause:
    """Why `node` lost this leader. `handed_over`: the leader had another member campaign."""
    member = cluster.members.get(leader)
    if member is None or leader not in cluster.members[node].raft.log.members.all:
        return "removed"
    return cause_of_silence(cluster, node, leader) or ("transfer" if handed_over else "stepped_down")


def cause_of_silence(cluster: SimulatedCluster, node: str, other: str) -> Cause | None:
    """Why `node` gets no answer of `other`; None: it should get one."""
    if not cluster.members[other].running:
        return "stopped"
    return None if cluster.net.connected(node, other) else "unreachable"


def cause_of_failed_calls(cluster: SimulatedCluster, node: str, peer: str) -> Cause:
    """Why calls of `node` to this peer fail: it gets none of them, or the network loses or delays too many."""
    slow = cluster.net.conditions.latency * SLOW_SHARE > cluster.options.call_timeout
    bad = cluster.net.conditions.loss or slow
    return cause_of_silence(cluster, node, peer) or ("unreachable" if bad else "unknown")


def evidence_of(
    cluster: SimulatedCluster, node: str, member: str, last_answer: float | None
) -> dict[str, float]:
    """What `node` can be shown of a member that it lost or does not hear: the faults that this member suffers.

    `last_answer`: seconds since it last answered `node`.
    """
    evidence: dict[str, float] = {}
    lost = cluster.members.get(member)
    if last_answer is not None and member != node:
        evidence["last_answer_ms"] = round(last_answer * 1000, 1)
    if lost is None:
        return evidence
    membership = lost.raft.log.membership
    reached = sum(
        other in cluster.members and cause_of_silence(cluster, member, other) is None for other in membership
    )
    if reached < len(membership):
        evidence |= {"members_reached": reached, "quorum": majority(len(membership))}
    if cluster.net.conditions.loss:
        evidence["loss"] = cluster.net.conditions.loss
    if cluster.net.conditions.latency * SLOW_SHARE > cluster.options.timing.election:
        evidence["latency_ms"] = cluster.net.conditions.latency / TICKS_PER_MS
    if disk := cluster.faults.disk_latency.get(member):
        evidence["disk_latency_ms"] = disk / TICKS_PER_MS
    if lost.clock is not None and lost.clock.set_wrong:
        evidence |= {"clock_rate": lost.clock.rate, "clock_offset_ms": lost.clock.offset / TICKS_PER_MS}
    return evidence


def build_status(
    cluster: SimulatedCluster, node: str, membership: Mapping[str, str], latency: LatencyTracker, now: Instant
) -> ClusterStatus:
    """The whole status. `membership`: the members to show; the latency tracker knows all of them but this node."""
    member = cluster.members[node]
    raft = member.raft
    leader = raft.leader if member.alive else ""
    progress = raft.progress if member.alive else {}
    peers = {name: address for name, address in membership.items() if name != node}
    return ClusterStatus(
        node=NodeView(node, role_of(cluster, node), raft.term),
        leader=LeaderView(leader, membership.get(leader, ""), leader == node) if leader else LeaderView(),
        indices=Indices(raft.log.last_index, raft.log.last_term, raft.commit, raft.commit),
        peers=tuple(
            PeerView(
                id=peer,
                address=address,
                match_index=progress[peer].match if peer in progress else UNSET,
                next_index=progress[peer].next if peer in progress else UNSET,
                applied_index=cluster.members[peer].raft.commit if peer in cluster.members else UNSET,
                latency=latency.peer_latency(peer, now),
                state=role_of(cluster, peer),
                voter=peer in raft.log.membership,
            )
            for peer, address in peers.items()
        ),
        peer_states=tuple(
            PeerState(peer, address, role_of(cluster, peer)) for peer, address in peers.items()
        ),
        cluster_health=latency.cluster_health(now),
        observed_by=node,
        observed_at=now.wall,
        stale=not leader or member.paused,
    )


def why_not_ready(cluster: SimulatedCluster, node: str) -> str | None:
    """Why a read at `node` could miss an answered write; None when it cannot.

    A leader's first entry is the first of its term, and comes after everything that was committed before.
    """
    member = cluster.members[node]
    raft = member.raft
    if not member.running:
        return "this node is paused" if member.alive else "this node is down"
    if not raft.leader:
        return "no leader"
    if not member.caught_up:
        return "this node has not applied again what it had applied before its disk refused writes"
    if raft.log.term(raft.commit) != raft.term:
        return "this node has not applied its leader's first entry yet"
    return None
