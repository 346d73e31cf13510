"""One simulated member in its surroundings, and how all of them live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol

from .disk import Disk
from .machine import Raft
from .node import NOTHING, Output, Timing
from .requests import Ask, Declined, Verdict, perform
from .simnet import Weather

REMEMBERED_REPLIES = 1024


class StateMachine(Protocol):
    """What committed commands are applied to: the same commands make the same state in every member."""

    def apply(self, data: bytes) -> object: ...
    def encode(self) -> bytes: ...
    def restore(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the members live; times in ticks."""

    timing: Timing
    weather: Weather
    probe_interval: int
    call_timeout: int
    snapshot_threshold: int
    """Applied entries since the last snapshot that make a new one due."""
    snapshot_interval: int
    """After so long a new one is due if anything was applied since."""


class Member:
    """One member in its surroundings: its Raft, its state machine, its disk and its timers."""

    def __init__(self, raft: Raft, machine: StateMachine, disk: Disk, life: int) -> None:
        self.raft = raft
        self.machine = machine
        self.disk = disk
        self.life = life
        """Counts starts: what was meant for an earlier life is void."""
        self.alive = True
        self.standing = raft.standing
        self.membership: Mapping[str, str] | None = None
        self.replies: dict[tuple[str, int], Verdict] = {}
        """As leader of this term: what was answered, so that a request that comes again is not done again."""
        self.probe_due = 0
        self.snapshot_due = 0
        self.due = 0

    def reckon_due(self) -> None:
        deadline = self.raft.deadline
        self.due = self.probe_due if deadline is None else min(deadline, self.probe_due)

    def answer(self, now: int, sender: str, ask: Ask) -> tuple[Verdict, Output]:
        """The verdict on a request from the network, and what doing it asks for: nothing if it came before."""
        key = sender, ask.serial
        verdict = self.replies.get(key)
        if verdict is not None:
            return verdict, NOTHING
        output = NOTHING
        if self.raft.term == ask.term:
            verdict, output = perform(self.raft, now, ask.wish)
        else:
            verdict = Declined("not_leader")
        if self.raft.role == "Leader":
            self.replies[key] = verdict
            if len(self.replies) > REMEMBERED_REPLIES:
                del self.replies[next(iter(self.replies))]
        return verdict, output


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
    options: Options,
    chance: Random,
    now: int,
    life: int,
    machine: StateMachine,
    applied: int,
) -> Member:
    """A member that begins from its disk, with a state machine that holds the commands up to `applied`, or up to
    the disk's snapshot if that is later."""
    raft = Raft(name, disk.read(), timing=options.timing, chance=chance, now=now, applied=applied)
    member = Member(raft, machine, disk, life)
    member.probe_due = now + int(chance.random() * options.probe_interval)
    member.snapshot_due = now + options.snapshot_interval
    member.reckon_due()
    return member
