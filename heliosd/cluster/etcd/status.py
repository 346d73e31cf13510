"""The status of an etcd cluster as one heliosd sees it, in the shapes of the REST API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from msgspec import UNSET, UnsetType

from heliosd.clock import Instant
from heliosd.protocol.views.status import (
    ClusterStatus,
    Indices,
    LeaderView,
    NodeView,
    ObserverView,
    PeerState,
    PeerView,
)
from heliosd.raft.roles import Role

from .alarms import alarms_in
from .event_log import LogHead
from .members import address_of, kind_of
from .view import ClusterView


def build_status(
    view: ClusterView, observers: tuple[ObserverView, ...], now: Instant, logged: LogHead | None = None
) -> ClusterStatus:
    """The whole status. Where no member bears this node's id, the indices are the leader's. `logged`: the leader of
    this head is shown, not that of the view."""
    own = view.own
    leader = view.leader if logged is None else logged.leader
    peers = [each for each in view.members if own is None or each.id != own.id]
    return ClusterStatus(
        node=NodeView(
            id=own.id if own else view.node_id,
            state=_role(view, leader, own.id, now) if own else view.own_role(now),
            term=view.own_term if logged is None else max(view.own_term, logged.term),
            name=own.name if own else UNSET,
            voter=not own.is_learner if own else UNSET,
            healthy=view.health.own_healthy(now) if own else UNSET,
            **_reported(view, own.id if own else ""),
        ),
        leader=_leader(view, leader) or LeaderView(leader if logged is not None else ""),
        indices=_indices(view, own.id if own else view.leader),
        peers=tuple(
            PeerView(
                id=peer.id,
                name=peer.name,
                address=address_of(peer),
                address_kind=kind_of(peer),
                applied_index=_applied(view, peer.id),
                latency=view.latency.peer_latency(peer.id, now),
                **_reported(view, peer.id),
                state=_role(view, leader, peer.id, now),
                voter=not peer.is_learner,
            )
            for peer in peers
        ),
        peer_states=tuple(
            PeerState(peer.id, address_of(peer), _role(view, leader, peer.id, now), peer.name, kind_of(peer))
            for peer in peers
        ),
        cluster_health=view.latency.cluster_health(now),
        observed_by=view.node_id,
        observed_at=now.wall,
        stale=not (leader and view.leader) or view.suspect or not view.quorum_answers(now),
        observers=observers,
    )


def why_not_ready(view: ClusterView) -> str | None:
    """No leader, one that does not answer here, or an alarm (etcd then refuses writes); None: ready."""
    if not view.leader:
        return "no leader"
    if view.suspect:
        return f"the leader {view.leader} does not answer"
    alarms = [
        f"{kind} on {', '.join(sorted(members))}" for kind, members in sorted(raised_alarms(view).items())
    ]
    return f"etcd has raised an alarm: {'; '.join(alarms)}" if alarms else None


class _Reported(TypedDict, total=False):
    version: str
    db_size_bytes: int
    db_quota_bytes: int
    alarms: tuple[str, ...]


def _reported(view: ClusterView, member: str) -> _Reported:
    """What this member reports of itself; nothing while it does not answer."""
    status = view.last_status(member)
    if status is None or member in view.failures() or not status.version:
        return {}
    raised = alarms_in(status.errors).items()
    found = _Reported(
        version=status.version,
        db_size_bytes=status.db_size,
        alarms=tuple(sorted(kind for kind, members in raised if member in members)),
    )
    # In a status since 3.6, in /metrics before.
    quota = status.db_size_quota or view.traces.of(member).db_quota
    if quota:
        found["db_quota_bytes"] = quota
    return found


def _applied(view: ClusterView, member: str) -> int | UnsetType:
    """What this member has applied, by its last answer; unset while it does not answer."""
    status = view.last_status(member)
    return UNSET if status is None or member in view.failures() else status.raft_applied_index


def raised_alarms(view: ClusterView) -> dict[str, set[str]]:
    """The alarms that the members which answer list; see `alarms_in`."""
    return alarms_in(_errors(view))


def _errors(view: ClusterView) -> Iterator[str]:
    """The errors in the statuses of the members that answer."""
    failed = view.failures()
    for each in view.members:
        status = view.last_status(each.id)
        if status is not None and each.id not in failed:
            yield from status.errors


def _role(view: ClusterView, leader: str, member: str, now: Instant) -> Role:
    """As the view has it, with another leader."""
    role = view.role(member, now)
    if member == leader:
        return "Leader"
    return role if role != "Leader" else "Follower" if leader else "Unknown"


def _leader(view: ClusterView, leader: str) -> LeaderView | None:
    own = view.own
    for each in view.members:
        if each.id == leader:
            is_leader = own is not None and own.id == each.id
            return LeaderView(each.id, address_of(each), is_leader, each.name, kind_of(each))
    return None


def _indices(view: ClusterView, member: str) -> Indices:
    """`raftIndex` of etcd's status is the committed index; etcd does not show entries beyond it."""
    status = view.last_status(member)
    if status is None:
        return Indices(0, 0, 0, 0)
    return Indices(status.raft_index, status.raft_term, status.raft_index, status.raft_applied_index)
