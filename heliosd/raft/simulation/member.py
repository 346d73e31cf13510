"""One simulated member in its surroundings, and how all of them live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol

from heliosd.raft.node import RaftNode
from heliosd.raft.state import NOTHING, Ready, Timing

from .disk import Disk
from .network import NetworkConditions
from .proposals import Declined, ForwardedProposal, ProposalResult, perform

REMEMBERED_REPLIES = 1024


class StateMachine(Protocol):
    """What committed commands are applied to: the same commands make the same state in every member."""

    def apply(self, data: bytes) -> object: ...
    def encode(self) -> bytes: ...
    def restore(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOptions:
    """How the members live; times in ticks."""

    timing: Timing
    conditions: NetworkConditions
    probe_interval: int
    call_timeout: int
    snapshot_threshold: int
    """Applied entries since the last snapshot that make a new one due."""
    snapshot_interval: int
    """After so long a new one is due if anything was applied since."""


class SimulatedMember:
    """One member in its surroundings: its Raft, its state machine, its disk and its timers."""

    def __init__(self, raft: RaftNode, machine: StateMachine, disk: Disk, incarnation: int) -> None:
        self.raft = raft
        self.machine = machine
        self.disk = disk
        self.incarnation = incarnation
        """Counts starts: what was meant for an earlier life is void."""
        self.alive = True
        self.soft_state = raft.soft_state
        self.membership: Mapping[str, str] | None = None
        self.replies: dict[tuple[str, int], ProposalResult] = {}
        """As leader of this term: what was answered, so that a request that comes again is not done again."""
        self.probe_due = 0
        self.snapshot_due = 0
        self.due = 0

    def reckon_due(self) -> None:
        deadline = self.raft.deadline
        self.due = self.probe_due if deadline is None else min(deadline, self.probe_due)

    def answer(self, now: int, sender: str, ask: ForwardedProposal) -> tuple[ProposalResult, Ready]:
        """The verdict on a request from the network, and what doing it asks for: nothing if it came before."""
        key = sender, ask.serial
        result = self.replies.get(key)
        if result is not None:
            return result, NOTHING
        output = NOTHING
        if self.raft.term == ask.term:
            result, output = perform(self.raft, now, ask.proposal)
        else:
            result = Declined("not_leader")
        if self.raft.role == "Leader":
            self.replies[key] = result
            if len(self.replies) > REMEMBERED_REPLIES:
                del self.replies[next(iter(self.replies))]
        return result, output


def restored(disk: Disk, machine: StateMachine) -> StateMachine:
    """A new state machine with what the disk's snapshot holds."""
    snapshot = disk.read().snapshot
    if snapshot.data:
        machine.restore(snapshot.data)
    return machine


def started(
    name: str,
    disk: Disk,
    *,
    options: SimulationOptions,
    rng: Random,
    now: int,
    incarnation: int,
    machine: StateMachine,
    applied: int,
) -> SimulatedMember:
    """A member that begins from its disk, with a state machine that holds the commands up to `applied`, or up to
    the disk's snapshot if that is later."""
    raft = RaftNode(name, disk.read(), timing=options.timing, rng=rng, now=now, applied=applied)
    member = SimulatedMember(raft, machine, disk, incarnation)
    member.probe_due = now + int(rng.random() * options.probe_interval)
    member.snapshot_due = now + options.snapshot_interval
    member.reckon_due()
    return member
