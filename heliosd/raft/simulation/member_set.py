"""Which members of a simulated cluster exist, and how each one starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from heliosd.raft.node import RaftNode
from heliosd.raft.state import NEVER, RaftChange
from heliosd.raft.storage import HardState, LogSuffix, MemberState, SnapshotSaved

from .disk import Disk
from .member import SimulatedMember, SimulationOptions, StateMachine, restored, started
from .member_clock import MemberClock
from .write_batch import MemberWrite, WriteBatch


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
        self._clocks: dict[str, MemberClock] = {}

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
        member = self._start(name, old.disk, now)
        member.former = (applied, old.machine) if old.caught_up else old.former
        return member

    def create(self, name: str, leader: RaftNode, now: int) -> tuple[RaftChange, ...]:
        """Start a member that `leader` has added. Returns its first disk, to be written with the leader's entry.

        It starts with a copy of what is committed. So it never votes, nor counts for a commit, with less than the
        cluster had committed when it was added, whatever an earlier member of its id did (thesis 4.2.1 has new
        servers catch up before they count).
        """
        log = leader.log
        entries = log.slice(log.first_index, leader.commit)
        state = MemberState(term=leader.term, snapshot=log.snapshot, log=entries)
        self._start(name, Disk(state), now)
        disk = (HardState(name, leader.term, ""), SnapshotSaved(name, log.snapshot, keeps_log=False))
        return (*disk, LogSuffix(name, entries)) if entries else disk

    def next_timer(self) -> tuple[int, SimulatedMember | None]:
        """When the next timer fires, and whose it is; `NEVER` if no member runs."""
        due, first = NEVER, None
        for member in self.members.values():
            if member.due < due and member.alive and not member.paused:
                due, first = member.due, member
        return due, first

    def writer(self, write: MemberWrite) -> SimulatedMember | None:
        """The member that wanted this written, if it is still up."""
        member = self.members.get(write.member)
        up = member is not None and member.alive and member.incarnation == write.incarnation
        return member if up else None

    def store(self, batch: WriteBatch) -> None:
        """The batch is on the members' disks."""
        for write in batch.members:
            member = self.members.get(write.member)
            # Another member may have its id by now; one that has crashed finds its writes after a restart.
            if member is not None and member.incarnation == write.incarnation:
                for change in write.changes:
                    member.disk.write(change)

    def unneeded(self) -> list[str]:
        """The members that count for no majority any more.

        What any member knows to be committed is final. So a member is unneeded if the membership there excludes it,
        and no log has a later membership with it. A removal that is not committed may still be truncated.
        """
        newest = max((member.raft for member in self.members.values()), key=lambda raft: raft.commit)
        needed = {self.root, *newest.log.members_at(newest.commit).all}
        for member in self.members.values():
            for members in member.raft.log.memberships_after(newest.commit):
                needed.update(members.all)
        return [name for name in self.members if name not in needed]

    def remove(self, name: str) -> None:
        self.members.pop(name).alive = False
        self._clocks.pop(name, None)

    def clock(self, name: str) -> MemberClock:
        """A member's clock, to be set. It outlives crashes of the member."""
        clock = self._clocks.get(name)
        if clock is None:
            clock = self._clocks[name] = self.members[name].clock = MemberClock()
        return clock

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
            clock=self._clocks.get(name),
        )
        return member
