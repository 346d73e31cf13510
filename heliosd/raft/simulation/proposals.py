"""Proposals of clients, forwarded from a member to its leader, and the replies.

They travel over the same network as Raft's messages, so a member that is cut off cannot write.
"""

from __future__ import annotations

from typing import assert_never

from msgspec import Struct

from heliosd.raft.membership import ChangeRefused, Reason, with_learner, without_member
from heliosd.raft.node import RaftNode
from heliosd.raft.state import NOTHING, Ready


class WriteCommands(Struct, frozen=True):
    """Append these commands, in this order."""

    commands: tuple[bytes, ...]


class AddMember(Struct, frozen=True):
    """As a learner, which its leader promotes once it has caught up."""

    member: str
    address: str


class RemoveMember(Struct, frozen=True):
    member: str


class TransferLeadership(Struct, frozen=True):
    """`target` "" = the most advanced other voter."""

    target: str


Proposal = WriteCommands | AddMember | RemoveMember | TransferLeadership


class ForwardedProposal(Struct, frozen=True):
    """To the leader of `term`. It may be sent again under its `serial`; that leader does it once."""

    serial: int
    term: int
    proposal: Proposal


class Accepted(Struct, frozen=True):
    """It is in the leader's log from `index` on, in `term`, and may still be truncated.

    For a transfer: it has started, to `target`.
    """

    index: int
    term: int
    target: str = ""


class Declined(Struct, frozen=True):
    """Nothing was appended."""

    reason: Reason


ProposalResult = Accepted | Declined


class ProposalReply(Struct, frozen=True):
    serial: int
    result: ProposalResult


def perform(raft: RaftNode, now: int, proposal: Proposal) -> tuple[ProposalResult, Ready]:
    """Carry out a proposal, if `raft` leads and its rules allow it."""
    if raft.role != "Leader":
        return Declined("not_leader"), NOTHING
    accepted = Accepted(raft.log.last_index + 1, raft.term)
    members = raft.log.members
    try:
        match proposal:
            case WriteCommands(commands=commands):
                return accepted, raft.propose(now, commands)
            case AddMember(member=member, address=address):
                return accepted, raft.propose_membership(now, with_learner(members, member, address))
            case RemoveMember(member=member):
                return accepted, raft.propose_membership(now, without_member(members, member))
            case TransferLeadership(target=target):
                if target == raft.id or (not target and len(members.voters) == 1):
                    return Accepted(0, raft.term, raft.id), NOTHING
                output = raft.transfer(now, target)
                return Accepted(0, raft.term, raft.transfer_target), output
            case _:
                assert_never(proposal)
    except ChangeRefused as refused:
        return Declined(refused.reason), NOTHING
