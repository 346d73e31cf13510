"""When a membership may change: by one member at a time (thesis 4.1, and its correction of 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from .log import Members
from .state import NodeState

Reason = Literal["not_leader", "transferring", "busy", "unknown_member", "last_member", "taken", "storage"]


class ChangeRefused(Exception):
    """A member refused a proposal: nothing was appended.

    `busy`: another change is not committed yet, or none is allowed before the term's first commit; try again.
    `taken`: the id or the address belongs to a member. `storage`: the disk refused it.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def check_change(node: NodeState, members: Members) -> None:
    """Raise `ChangeRefused` unless this leader may append `members` now."""
    if change_pending(node) or not committed_in_term(node):
        raise ChangeRefused("busy")
    if not differs_by_one(node.log.members, members):
        raise ValueError("a membership changes by one member at a time")


def change_pending(node: NodeState) -> bool:
    """A membership is in force once appended, so there may be one uncommitted change, never two."""
    return node.log.membership_index > node.commit


def committed_in_term(node: NodeState) -> bool:
    """Without a commit of this term, a change that an earlier leader left uncommitted may return (the
    correction)."""
    return node.log.term(node.commit) == node.term


def differs_by_one(old: Members, new: Members) -> bool:
    """One member is added, removed or promoted, and the others are unchanged: then majorities of both overlap."""
    changed = (old.voters.keys() ^ new.voters.keys()) | (old.learners.keys() ^ new.learners.keys())
    before, after = old.all, new.all
    return len(changed) == 1 and all(after[name] == before[name] for name in before.keys() & after.keys())


def with_learner(members: Members, member: str, address: str) -> Members:
    """The members and a new learner (thesis 4.2.1). Raises `ChangeRefused("taken")`."""
    if member in members.all or address in members.all.values():
        raise ChangeRefused("taken")
    return Members(members.voters, {**members.learners, member: address})


def without_member(members: Members, member: str) -> Members:
    """The members without one. Raises `ChangeRefused`, with `unknown_member` or `last_member`."""
    if member not in members.all:
        raise ChangeRefused("unknown_member")
    if len(members.voters) == 1 and member in members.voters:
        raise ChangeRefused("last_member")
    return Members(_without(members.voters, member), _without(members.learners, member))


def with_promoted(members: Members, learner: str) -> Members:
    """The learner has a vote."""
    voters = {**members.voters, learner: members.learners[learner]}
    return Members(voters, _without(members.learners, learner))


def may_promote(node: NodeState, now: int, learner: str) -> bool:
    """Whether this leader may give the learner a vote now: it holds all that is committed, and its last round of
    catching up took less than an election timeout (thesis 4.2.1)."""
    progress = node.progress[learner]
    if progress.match >= progress.round_end:
        caught_up = now - progress.round_began < node.timing.election
        progress.begin_round(node.log.last_index, now)
        progress.caught_up = caught_up
    return (
        progress.caught_up
        and progress.match >= node.commit
        and not node.transfer_target
        and not change_pending(node)
        and committed_in_term(node)
    )


def _without(addresses: Mapping[str, str], member: str) -> dict[str, str]:
    return {other: address for other, address in addresses.items() if other != member}
