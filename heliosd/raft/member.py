"""One simulated member in its surroundings, and how all of them live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .disk import Disk
from .machine import Raft
from .node import Timing
from .requests import Verdict
from .simnet import Weather


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
