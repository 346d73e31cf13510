"""Which members of a simulated cluster exist, and how each one starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from heliosd.raft.storage import MemberState

from .disk import Disk
from .member import SimulatedMember, SimulationOptions, StateMachine, restored, started


class MemberSet:
    """The members by id, crashed ones too. One of them is the `root`: it is never removed."""

    def __init__(
        self, root: str, options: SimulationOptions, rng: Random, machine: Callable[[], StateMachine]
    ) -> None:
        self.root = root
        self.members: dict[str, SimulatedMember] = {}
        self._options = options
        self._rng = rng
        self._machine = machine
        self._incarnations = 0

    def load(self, states: Mapping[str, MemberState], now: int) -> None:
        """Start the members that have a disk."""
        for name, state in states.items():
            self._start(name, Disk(state), now)

    def revive(self, name: str, now: int, *, keep_machine: bool) -> SimulatedMember:
        """Start a member anew from its disk. With `keep_machine` its state machine stays, if all that was applied
        to it is on that disk."""
        old = self.members[name]
        applied = old.raft.commit
        if keep_machine and old.disk.holds(applied, old.raft.log.term(applied)):
            return self._start(name, old.disk, now, old.machine, applied)
        return self._start(name, old.disk, now)

    def review(self, now: int) -> list[str]:
        """Start the members that a log names and that do not exist yet. Returns those that no log needs any more.

        Needed are the members that the root names, in the membership in force or in the one it has applied, and
        those that they name in turn. A removed member's own log does not count: it may not know of its removal.
        """
        needed: dict[str, None] = {}
        to_visit = [self.root]
        while to_visit:
            name = to_visit.pop()
            needed[name] = None
            member = self.members.get(name) or self._start(name, Disk(MemberState()), now)
            log = member.raft.log
            member.membership = log.membership
            to_visit += [
                other
                for other in (*log.membership, *log.membership_at(member.raft.commit))
                if other not in needed and other not in to_visit
            ]
        return [name for name in self.members if name not in needed]

    def remove(self, name: str) -> None:
        self.members.pop(name).alive = False

    def _start(
        self, name: str, disk: Disk, now: int, machine: StateMachine | None = None, applied: int = 0
    ) -> SimulatedMember:
        self._incarnations += 1
        member = self.members[name] = started(
            name,
            disk,
            options=self._options,
            rng=Random(self._rng.getrandbits(64)),  # noqa: S311
            now=now,
            incarnation=self._incarnations,
            machine=restored(disk, self._machine()) if machine is None else machine,
            applied=applied,
        )
        return member
