"""The leader: replication, commit, CheckQuorum (thesis 6.2), leadership transfer (thesis 3.10)."""

from __future__ import annotations

from collections.abc import Sequence

from . import contact, membership, quorum
from .log import Members, encode_membership
from .messages import (
    AppendAnswer,
    AppendEntries,
    Entry,
    EntryKind,
    InstallAnswer,
    TimeoutNow,
)
from .progress import Progress
from .snapshot_chunks import chunk_of
from .state import IllegalTransition, NodeState

MAX_ENTRIES = 1024
"""Of one message."""


def lead(node: NodeState, now: int) -> None:
    """Become leader, and start the term with a no-op entry that commits all earlier ones (paper 5.4.2, 8)."""
    if node.role != "Candidate":
        raise IllegalTransition(f"{node.id}: a {node.role} cannot become leader")
    node.role = "Leader"
    node.leader = node.id
    node.granted.clear()
    node.progress = {
        member: Progress(next_index=node.log.last_index + 1, now=now) for member in node.others()
    }
    node.heartbeat_due = now + node.timing.heartbeat
    append_own(node, now, "noop", [b""])


def append_own(node: NodeState, now: int, kind: EntryKind, contents: Sequence[bytes]) -> None:
    """Append entries of this term and send them. They are written and sent in parallel (thesis 10.2.1)."""
    first = node.log.last_index + 1
    entries = [Entry(first + place, node.term, kind, data) for place, data in enumerate(contents)]
    node.append(entries)
    if kind == "membership":
        _follow_membership(node, now)
    for member in node.progress:
        replicate(node, now, member)


def change_membership(node: NodeState, now: int, members: Members) -> None:
    append_own(node, now, "membership", [encode_membership(members.voters, members.learners)])


def _follow_membership(node: NodeState, now: int) -> None:
    members = node.others()
    for gone in node.progress.keys() - set(members):
        del node.progress[gone]
    for member in members:
        if member not in node.progress:
            node.progress[member] = Progress(next_index=node.log.last_index, now=now)


# Sending


def replicate(node: NodeState, now: int, member: str) -> None:
    """Send the follower the entries that it lacks, as far as they may be sent now."""
    progress = node.progress[member]
    while progress.mode != "snapshot" and progress.next <= node.log.last_index:
        if progress.mode == "probe" and progress.waiting:
            return
        if progress.next < node.log.first_index:
            _send_snapshot(node, now, member, progress)
        else:
            _send_append(node, now, member, progress)


def send_heartbeat(node: NodeState, now: int, member: str) -> None:
    """A heartbeat, with the entries that the follower lacks. It finds lost messages, which are sent again."""
    progress = node.progress[member]
    if progress.mode == "snapshot":
        if now >= progress.snapshot_sent_at + node.timing.election:
            _send_snapshot(node, now, member, progress)
        else:  # index 0 matches every log
            node.send(member, AppendEntries(node.term, 0, 0, (), 0, now))
    elif progress.next < node.log.first_index:
        _send_snapshot(node, now, member, progress)
    else:
        _send_append(node, now, member, progress)


def _send_append(node: NodeState, now: int, member: str, progress: Progress) -> None:
    before = progress.next - 1
    entries = node.log.slice(progress.next, before + MAX_ENTRIES)
    node.send(member, AppendEntries(node.term, before, node.log.term(before), entries, node.commit, now))
    if progress.mode == "probe":
        progress.waiting = True
    else:
        progress.next += len(entries)


def _send_snapshot(node: NodeState, now: int, member: str, progress: Progress) -> None:
    """The chunk at `progress.offset`: the next one, or again the one that was not answered."""
    if progress.mode != "snapshot" or progress.offset == 0:
        progress.send_snapshot(node.log.snapshot)
    chunk = chunk_of(
        progress.snapshot, term=node.term, offset=progress.offset, size=node.chunk_bytes, now=now
    )
    node.send(member, chunk)
    progress.snapshot_sent_at = now


# Answers


def on_append_answer(node: NodeState, now: int, member: str, answer: AppendAnswer) -> None:
    progress = _heard(node, now, member, answer.term, answer.sent)
    if progress is None:
        return
    if answer.accepted:
        if progress.matched(answer.match_index):
            advance_commit(node, now)
        if member in node.progress:
            replicate(node, now, member)
            hand_over(node)
        if member in node.log.members.learners and membership.may_promote(node, now, member):
            change_membership(node, now, membership.with_promoted(node.log.members, member))
    elif answer.conflict_index and progress.mode != "snapshot" and answer.prev_index > progress.match:
        if progress.mode == "probe" and answer.prev_index != progress.next - 1:
            return  # the answer to an older probe
        progress.search_from(_next_guess(node, answer))
        replicate(node, now, member)


def on_install_answer(node: NodeState, now: int, member: str, answer: InstallAnswer) -> None:
    progress = _heard(node, now, member, answer.term, answer.sent)
    if progress is None:
        return
    if answer.match_index == 0:
        newest = progress.mode == "snapshot" and answer.sent >= progress.snapshot_sent_at
        if newest and answer.received != progress.offset:
            progress.offset = answer.received
            _send_snapshot(node, now, member, progress)
    else:
        if progress.matched(answer.match_index):
            advance_commit(node, now)
        if member in node.progress:
            replicate(node, now, member)
            hand_over(node)


def _heard(node: NodeState, now: int, member: str, term: int, sent: int) -> Progress | None:
    """Record that a follower answered; None if the answer is not for the leader of this term."""
    if term > node.term:
        node.follow(now, term, "")
    if node.role != "Leader" or term != node.term:
        return None
    progress = node.progress.get(member)
    if progress is not None:
        progress.heard_at = max(progress.heard_at, sent)
        if node.reads:
            contact.confirm_reads(node)
    return progress


def _next_guess(node: NodeState, answer: AppendAnswer) -> int:
    """Skip a term at a time (paper 5.3, the end): the last own entry of the conflicting term may match."""
    if answer.conflict_term:
        last = node.log.last_of_term(answer.conflict_term, at_most=answer.prev_index)
        if last:
            return last + 1
    return answer.conflict_index


# Committing


def advance_commit(node: NodeState, now: int) -> None:
    """Commit what is on the disks of a majority, counting only entries of the own term (paper 5.4.2)."""
    reached = quorum.reached_by_majority(_match_index(node, member) for member in node.membership)
    if reached > node.commit and counts_for_commit(node, reached):
        node.commit_to(reached)
        for member in node.progress:  # followers apply it now, not at the next heartbeat
            send_heartbeat(node, now, member)
        if not node.is_voter and node.log.membership_index <= node.commit:
            node.follow(now, node.term, "")  # its own removal is committed (thesis 4.2.2)


def counts_for_commit(node: NodeState, index: int) -> bool:
    return node.log.term(index) == node.term


def _match_index(node: NodeState, member: str) -> int:
    """How far a member's disk has this log; the leader's own entries count once they are durable, too."""
    return node.durable_index if member == node.id else node.progress[member].match


# CheckQuorum and transfer


def on_tick(node: NodeState, now: int) -> None:
    """What is due for a leader."""
    due = contact.contact_due(node)
    if due is not None and due <= now:
        node.follow(now, node.term, "")
        return
    if node.transfer_target and node.transfer_due <= now:
        node.transfer_target = ""
    if node.heartbeat_due <= now:
        node.heartbeat_due = now + node.timing.heartbeat
        for member in node.progress:
            send_heartbeat(node, now, member)
        hand_over(node)


def hand_over(node: NodeState) -> None:
    """Have the target of a transfer campaign, once its log is complete (thesis 3.10)."""
    target = node.transfer_target
    if target in node.progress and node.progress[target].match == node.log.last_index:
        node.send(target, TimeoutNow(node.term))
