"""Proposals of clients, forwarded from a member to its leader, and the replies.

They travel over the same network as Raft's messages, so a member that is cut off cannot write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from heliosd.raft.membership import ChangeRefused, Reason, with_learner, without_member
from heliosd.raft.node import RaftNode
from heliosd.raft.state import NOTHING, Ready


@dataclass(frozen=True, slots=True)
class WriteCommands:
    """Append these commands, in this order."""

    commands: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AddMember:
    """As a learner, which its leader promotes once it has caught up."""

    member: str
    address: str


@dataclass(frozen=True, slots=True)
class RemoveMember:
    member: str


@dataclass(frozen=True, slots=True)
class TransferLeadership:
    """`target` "" = the most advanced other member."""

    target: str


Proposal = WriteCommands | AddMember | RemoveMember | TransferLeadership


@dataclass(frozen=True, slots=True)
class ForwardedProposal:
    """To the leader of `term`. It may be sent again under its `serial`; that leader does it once."""

    serial: int
    term: int
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is in the leader's log from `index` on, in `term`, and may still be truncated.

    For a transfer: it has started, to `target`.
    """

    index: int
    term: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Declined:
    """Nothing was appended."""

    reason: Reason


ProposalResult = Accepted | Declined


@dataclass(frozen=True, slots=True)
class ProposalReply:
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
