"""Elections: PreVote (thesis 9.6), votes (paper 5.2, 5.4.1), leadership transfer (thesis 3.10)."""

from __future__ import annotations

from . import leader, quorum
from .log import is_up_to_date
from .messages import PreVote, PreVoteAnswer, RequestVote, TimeoutNow, VoteAnswer
from .state import IllegalTransition, NodeState


def start_prevote(node: NodeState, now: int) -> None:
    """The election timeout has passed: ask whether an election could be won, without a new term.

    So a member that was cut off returns with its old term and does not depose the leader.
    """
    node.follow(now, node.term, "")
    node.restart_election_timer(now)
    node.prevoting = True
    node.granted = {node.id}
    for member in node.other_voters():
        node.send_after_persist(member, PreVote(node.term + 1, node.log.last_index, node.log.last_term, now))
    if quorum.has_majority(node.granted, node.membership):
        campaign(node, now, transfer=False)


def campaign(node: NodeState, now: int, *, transfer: bool) -> None:
    """Ask for votes in the next term (paper 5.2). The own vote counts once it is durable, see
    `own_vote_durable`."""
    if node.role == "Leader" or not node.may_campaign:
        raise IllegalTransition(f"{node.id}: a {node.role} must not campaign")
    node.role = "Candidate"
    node.leader = ""
    node.prevoting = False
    node.granted = set()
    node.enter_term(node.term + 1, vote=node.id)
    node.restart_election_timer(now)
    for member in node.other_voters():
        request = RequestVote(node.term, node.log.last_index, node.log.last_term, transfer, now)
        node.send_after_persist(member, request)


def own_vote_durable(node: NodeState, now: int) -> None:
    if node.role == "Candidate" and node.all_durable:
        node.granted.add(node.id)
        win_if_elected(node, now)


def win_if_elected(node: NodeState, now: int) -> None:
    if node.id in node.granted and quorum.has_majority(node.granted, node.membership):
        leader.lead(node, now)


def lease_active(node: NodeState, now: int) -> bool:
    """Whether a leader may still rely on this node, so that it must not vote for another (thesis 4.2.3)."""
    return node.role == "Leader" or now < node.lease_until


def may_vote(node: NodeState, candidate: str, term: int) -> bool:
    """One vote a term (paper 5.2): in a later term, or in this one if not given to another."""
    return term > node.term or (term == node.term and node.vote in {"", candidate})


def on_prevote(node: NodeState, now: int, candidate: str, request: PreVote) -> None:
    granted = (
        not lease_active(node, now)
        and may_vote(node, candidate, request.term)
        and is_up_to_date(
            request.last_term,
            request.last_index,
            than_term=node.log.last_term,
            than_index=node.log.last_index,
        )
    )
    node.send_after_persist(
        candidate, PreVoteAnswer(request.term if granted else node.term, granted, request.sent)
    )


def on_prevote_answer(node: NodeState, now: int, voter: str, answer: PreVoteAnswer) -> None:
    if not answer.granted:
        if answer.term > node.term:
            node.follow(now, answer.term, "")
    elif node.prevoting and answer.term == node.term + 1:
        node.granted.add(voter)
        if quorum.has_majority(node.granted, node.membership):
            campaign(node, now, transfer=False)


def on_request_vote(node: NodeState, now: int, candidate: str, request: RequestVote) -> None:
    if request.term > node.term and (request.transfer or not lease_active(node, now)):
        node.follow(now, request.term, "")
    granted = (
        request.term == node.term
        and node.role == "Follower"
        and may_vote(node, candidate, request.term)
        and is_up_to_date(
            request.last_term,
            request.last_index,
            than_term=node.log.last_term,
            than_index=node.log.last_index,
        )
    )
    # A learner votes too: it may have been promoted without knowing, and its vote may be needed (etcd-io/raft).
    if granted:
        if node.vote == "":
            node.enter_term(node.term, vote=candidate)
        node.prevoting = False
        node.restart_election_timer(now)
    node.send_after_persist(candidate, VoteAnswer(node.term, granted, request.sent))


def on_vote_answer(node: NodeState, now: int, voter: str, answer: VoteAnswer) -> None:
    if answer.term > node.term:
        node.follow(now, answer.term, "")
    elif node.role == "Candidate" and answer.term == node.term and answer.granted:
        node.granted.add(voter)
        win_if_elected(node, now)


def on_timeout_now(node: NodeState, now: int, leader: str, order: TimeoutNow) -> None:
    """Campaign without a pre-vote: the leader itself hands over."""
    if order.term == node.term and node.leader == leader and node.role == "Follower" and node.may_campaign:
        campaign(node, now, transfer=True)
