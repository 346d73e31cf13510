"""How a follower handles AppendEntries and InstallSnapshot (figures 2 and 13, "receiver implementation")."""

from __future__ import annotations

from .messages import AppendAnswer, AppendEntries, InstallAnswer, InstallSnapshot
from .state import IllegalTransition, NodeState


def accept_leader(node: NodeState, now: int, leader: str, term: int) -> None:
    """A sender that leads a term not below the own one is the leader (paper 5.2)."""
    if term == node.term and node.role == "Leader":
        raise IllegalTransition(f"{node.id}: {leader} leads term {term} too")
    if term != node.term or node.leader != leader or node.role != "Follower" or node.prevoting:
        node.follow(now, term, leader)
    node.lease_until = now + node.timing.election
    node.restart_election_timer(now)


def on_append(node: NodeState, now: int, leader: str, append: AppendEntries) -> None:
    log = node.log
    if append.term < node.term:
        # A former leader learns the term from this, and a candidate stuck in a later term is freed.
        node.send_after_persist(
            leader, AppendAnswer(node.term, False, 0, append.prev_index, 0, 0, append.sent)
        )
        return
    accept_leader(node, now, leader, append.term)
    covered = append.prev_index < log.snapshot.index  # committed, so it matches
    if not covered and not log.holds(append.prev_index, append.prev_term):
        index, term = log.conflict(append.prev_index)
        node.send_after_persist(
            leader, AppendAnswer(node.term, False, 0, append.prev_index, index, term, append.sent)
        )
        return
    missing = log.missing(append.entries)
    if missing:
        node.append(missing)
    match = append.prev_index + len(append.entries)
    node.commit_to(min(append.commit, match))
    node.send_after_persist(
        leader, AppendAnswer(node.term, True, match, append.prev_index, 0, 0, append.sent)
    )


def on_install(node: NodeState, now: int, leader: str, install: InstallSnapshot) -> None:
    if install.term < node.term:
        node.send_after_persist(leader, InstallAnswer(node.term, 0, install.sent))
        return
    accept_leader(node, now, leader, install.term)
    if install.snapshot.index > node.commit:
        whole = node.incoming.add(install)
        if whole is None:
            node.send_after_persist(leader, InstallAnswer(node.term, 0, install.sent, node.incoming.received))
            return
        node.install(whole)
    node.send_after_persist(leader, InstallAnswer(node.term, install.snapshot.index, install.sent))
