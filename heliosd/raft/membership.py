"""When a membership may change: by one member at a time (thesis 4.1, and its correction of 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

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


def check_change(node: NodeState, voters: Mapping[str, str]) -> None:
    """Raise `ChangeRefused` unless this leader may append `voters` now."""
    if change_pending(node) or not committed_in_term(node):
        raise ChangeRefused("busy")
    if not differs_by_one(node.membership, voters):
        raise ValueError("a membership changes by one member at a time")


def change_pending(node: NodeState) -> bool:
    """A membership is in force once appended, so there may be one uncommitted change, never two."""
    return node.log.membership_index > node.commit


def committed_in_term(node: NodeState) -> bool:
    """Without a commit of this term, a change that an earlier leader left uncommitted may return (the
    correction)."""
    return node.log.term(node.commit) == node.term


def differs_by_one(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """One member more or one less, and the others unchanged: then majorities of both overlap."""
    return len(old.keys() ^ new.keys()) == 1 and all(
        new[member] == old[member] for member in old.keys() & new.keys()
    )


def with_member(voters: Mapping[str, str], member: str, address: str) -> dict[str, str]:
    """The voters and a new one. Raises `ChangeRefused("taken")`."""
    if member in voters or address in voters.values():
        raise ChangeRefused("taken")
    return {**voters, member: address}


def without_member(voters: Mapping[str, str], member: str) -> dict[str, str]:
    """The voters without one. Raises `ChangeRefused`, with `unknown_member` or `last_member`."""
    if member not in voters:
        raise ChangeRefused("unknown_member")
    if len(voters) == 1:
        raise ChangeRefused("last_member")
    return {other: address for other, address in voters.items() if other != member}
