"""One simulated member: its Raft node, its state machine, its disk and its timers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from msgspec import Struct

from heliosd.raft.messages import Envelope
from heliosd.raft.node import RaftNode
from heliosd.raft.snapshot_chunks import CHUNK_BYTES
from heliosd.raft.state import NOTHING, Ready, Timing

from .disk import Disk
from .member_clock import MemberClock
from .network import NetworkConditions
from .proposals import Accepted, Declined, ForwardedProposal, ProposalReply, ProposalResult, perform

REMEMBERED_REPLIES = 1024


class StateMachine(Protocol):
    """What committed commands are applied to. Deterministic: the same commands give the same state."""

    def apply(self, data: bytes) -> object: ...
    def encode(self) -> bytes: ...
    def restore(self, data: bytes) -> None: ...


Inspect = Callable[["SimulatedMember", Ready, Envelope | None], None]
"""Takes a member, what its step returned, and the message of that step: None for a timer, a write, a proposal."""


class SimulationOptions(Struct, frozen=True, kw_only=True):
    """Settings of all members; times in ticks."""

    timing: Timing
    conditions: NetworkConditions
    probe_interval: int
    call_timeout: int
    snapshot_threshold: int
    """Applied entries since the last snapshot that make a new one due."""
    snapshot_interval: int
    """Ticks after which a new one is due, if anything was applied since."""
    chunk_bytes: int = CHUNK_BYTES
    """Of a snapshot, sent at once."""


class SimulatedMember:
    """One start of a member: it lives until the next crash, restart or removal."""

    def __init__(
        self, raft: RaftNode, machine: StateMachine, disk: Disk, incarnation: int, clock: MemberClock | None
    ) -> None:
        self.raft = raft
        self.clock = clock
        """Its own clock; None: it is right. `RaftNode` is given this clock's ticks."""
        self.machine = machine
        self.disk = disk
        self.incarnation = incarnation
        """Counts starts. What was meant for an earlier start is discarded."""
        self.alive = True
        self.paused = False
        """Stopped as by SIGSTOP: it lives and does nothing; what is sent to it waits."""
        self.persisted = 0
        """The last write that became durable while it was paused."""
        self.former: tuple[int, StateMachine] | None = None
        """What it had applied before a restart: the index and the state machine. It will be applied again."""
        self.membership = raft.log.members
        """The membership in force, as of the last output."""
        self.replies: dict[tuple[str, int], ProposalResult] = {}
        """As leader of this term: the replies by (sender, serial), so that a repeated proposal is not done
        twice."""
        self.probe_due = 0
        self.snapshot_due = 0
        self.due = 0

    @property
    def caught_up(self) -> bool:
        """Whether it has applied again what it had applied before a restart."""
        return self.former is None or self.raft.commit >= self.former[0]

    @property
    def visible_machine(self) -> StateMachine:
        """The state machine to read from, which never goes back."""
        return self.machine if self.former is None or self.caught_up else self.former[1]

    def after_refusal(self, reply: ProposalReply) -> ProposalReply:
        """The reply to send in place of this one, which was taken back when the disk refused this member's writes.

        What is on disk stays accepted: it may be committed, and was perhaps confirmed by an earlier reply.
        """
        result = reply.result
        lost = isinstance(result, Accepted) and result.index > self.disk.last_index
        return ProposalReply(reply.serial, Declined("storage")) if lost else reply

    @property
    def running(self) -> bool:
        return self.alive and not self.paused

    def time(self, now: int) -> int:
        """What its own clock shows."""
        return now if self.clock is None else self.clock.read(now)

    def update_due(self) -> None:
        deadline = self.raft.deadline
        if deadline is not None and self.clock is not None:
            deadline = self.clock.when(deadline)
        self.due = self.probe_due if deadline is None or deadline > self.probe_due else deadline

    def answer(self, now: int, sender: str, proposal: ForwardedProposal) -> tuple[ProposalResult, Ready]:
        """The result of a proposal from the network, and the output of doing it: `NOTHING` if it came before."""
        key = sender, proposal.serial
        result = self.replies.get(key)
        if result is not None:
            return result, NOTHING
        ready = NOTHING
        if self.raft.term == proposal.term:
            result, ready = perform(self.raft, self.time(now), proposal.proposal)
        else:
            result = Declined("not_leader")
        if self.raft.role == "Leader":
            self.replies[key] = result
            if len(self.replies) > REMEMBERED_REPLIES:
                del self.replies[next(iter(self.replies))]
        return result, ready


def restored(disk: Disk, machine: StateMachine) -> StateMachine:
    """The state machine, restored from the disk's snapshot."""
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
    clock: MemberClock | None,
) -> SimulatedMember:
    """A member started from its disk. Its state machine holds the commands up to `applied`, or up to the disk's
    snapshot if that is later."""
    shown = now if clock is None else clock.read(now)
    raft = RaftNode(
        name,
        disk.read(),
        timing=options.timing,
        rng=rng,
        now=shown,
        applied=applied,
        chunk_bytes=options.chunk_bytes,
    )
    member = SimulatedMember(raft, machine, disk, incarnation, clock)
    member.probe_due = now + int(rng.random() * options.probe_interval)
    member.snapshot_due = now + options.snapshot_interval
    member.update_due()
    return member
