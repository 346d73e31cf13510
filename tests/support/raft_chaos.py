"""Random faults on a simulated cluster, every run of which is checked: `Run(plan_of(seed), events).run()`."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from random import Random
from typing import TextIO

from msgspec import structs

from heliosd.raft.membership import ChangeRefused
from heliosd.raft.messages import Envelope, Snapshot
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.disk import Disk
from heliosd.raft.simulation.member import SimulatedMember
from heliosd.raft.simulation.network import NetworkConditions
from heliosd.raft.simulation.observations import (
    Crashed,
    Forgotten,
    MemberStarted,
    SoftStateChanged,
    Unwritten,
)
from heliosd.raft.simulation.proposals import (
    Accepted,
    AddMember,
    Proposal,
    RemoveMember,
    TransferLeadership,
    WriteCommands,
)
from heliosd.raft.simulation.write_batch import WriteBatch
from heliosd.raft.state import NEVER, RaftChange, Ready
from heliosd.raft.storage import MemberForgotten, MemberState

from .raft_checker import LIVENESS, Checker
from .raft_plan import ELECTION, MS, Plan
from .raft_trace import TraceWriter

PATIENCE = 10 * ELECTION
"""A healed cluster makes progress within this time."""

LEADERS_CHANGE = frozenset({SoftStateChanged, Crashed, MemberStarted, Unwritten, Forgotten})
"""What is reported where other members than before may take themselves for the leader."""


class Chain:
    """A state machine whose state is a checksum of all commands in their order."""

    def __init__(self) -> None:
        self.value = 0

    def apply(self, data: bytes) -> object:
        self.value = zlib.crc32(data, self.value)
        return self.value

    def encode(self) -> bytes:
        return b"%d" % self.value

    def restore(self, data: bytes) -> None:
        self.value = int(data or b"0")


@dataclass(slots=True)
class Run:
    """One run of a plan. `events`: after so many it is healed."""

    plan: Plan
    events: int
    without: Collection[str] = ()
    last: deque[str] | None = None
    """Takes a line for each event, where a failure is to be reported."""
    trace_file: TextIO | None = None
    """Takes the run as a trace (`raft_trace.py`)."""
    checker: Checker = field(init=False)
    cluster: SimulatedCluster = field(init=False)
    _tracer: TraceWriter | None = None
    trace: int = 0
    """A checksum of all that was observed."""
    done: int = 0
    _disks: dict[str, Disk] = field(init=False)
    _rng: Random = field(init=False)
    _batch: WriteBatch | None = None
    _batch_due: int = 0
    _refusing: bool = False
    _serial: int = 0
    _many_lead: bool = False
    _placed: Accepted = field(default_factory=lambda: Accepted(0, 0))

    def __post_init__(self) -> None:
        plan = self.plan
        self._rng = Random(plan.seed + 1)
        membership = {name: f"{name}:7000" for name in plan.names}
        states = {name: MemberState(term=1, snapshot=Snapshot(1, 1, membership)) for name in plan.names}
        self._disks = {name: Disk(state) for name, state in states.items()}
        self.checker = Checker(self.without)
        self._start(states, plan.seed, 0)

    def _start(self, states: dict[str, MemberState], seed: int, now: int) -> None:
        self.cluster = SimulatedCluster(
            root="a", states=states, options=self.plan.options, rng=Random(seed), machine=Chain, now=now
        )
        self.checker.attach(self.cluster)
        if self.trace_file is not None:
            self._tracer = TraceWriter(self.trace_file)
            for member in self.cluster.members.values():
                self._tracer.started(member)
        if self.last is not None or self._tracer is not None:
            self.cluster.inspect = self._record

    def _record(self, member: SimulatedMember, ready: Ready, envelope: Envelope | None) -> None:
        if self.last is not None:
            raft = member.raft
            what = (
                f"{envelope.sender}: {envelope.message}"
                if envelope is not None
                else "timer, disk or proposal"
            )
            self.last.append(f"  {self.cluster.now / 1000:.3f} ms {raft.id} {raft.role} {raft.term}: {what}")
        if self._tracer is not None:
            self._tracer.step(member, ready, envelope)
        self.checker.step(member, ready, envelope)

    def table(self) -> tuple[str, ...]:
        """A line for each member."""
        return tuple(
            f"  {name} {'up' if member.alive else 'down'} {member.raft.role} term {member.raft.term} "
            f"vote {member.raft.vote or '-'} leader {member.raft.leader or '-'} commit {member.raft.commit} "
            f"last {member.raft.log.last_index}/{member.raft.log.last_term} "
            f"snapshot {member.raft.log.snapshot.index} disk {member.disk.last_index} "
            f"voters {''.join(member.raft.log.membership)}"
            for name, member in sorted(self.cluster.members.items())
        )

    # Running

    def run(self) -> None:
        """Raises `Broken`, or `IllegalTransition` where a member finds that a rule is broken."""
        for at, action in self.plan.schedule:
            self._until(at)
            if self.done >= self.events:
                break
            getattr(self, f"_{action[0]}")(*action[1:])
            self._observe()
        else:
            self._until(self.plan.end)
        self._heal_and_progress()

    def _until(self, tick: int) -> None:
        """Process all that is due by `tick`, unless enough events are done."""
        while self.done < self.events and self._next(tick):
            pass

    def _next(self, tick: int) -> bool:
        """Process the next event or write that is due by `tick`; False: there was none, and it is `tick` now."""
        batch_due = self._batch_due if self._batch is not None else NEVER
        if self.cluster.run_event(tick if tick < batch_due else batch_due):
            self.done += 1
            self._observe()
        elif batch_due <= tick:
            self.cluster.wait_until(batch_due)
            self._land()
        else:
            self.cluster.wait_until(tick)
            self._observe()
            return False
        self._take()
        return True

    def _take(self) -> None:
        if self._batch is not None:
            return
        for name in self.cluster.take_snapshots_due():
            self.cluster.snapshot(name)
        self._batch = self.cluster.take_writes()
        if self._batch is not None:
            delay = int(self._rng.expovariate(1.0) * self.plan.disk_ticks) if self.plan.disk_ticks else 0
            self._batch_due = self.cluster.now + delay

    def _land(self) -> None:
        batch, self._batch = self._batch, None
        assert batch is not None
        if self._refusing:
            self._refusing = False
            self.cluster.refused(batch)
        else:
            self._store(batch)
            self.cluster.written(batch)
        self._observe()

    def _store(self, batch: WriteBatch) -> None:
        for change in batch.changes:
            if isinstance(change, MemberForgotten):
                self._disks.pop(change.member, None)
            else:
                assert isinstance(change, RaftChange)
                self._disks.setdefault(change.member, Disk(MemberState())).write(change)

    def _observe(self) -> None:
        if observations := self.cluster.take_observations():
            self.checker.observe(observations)
            if self._tracer is not None:
                self._tracer.observe(observations, self.cluster.members)
            if self.plan.eager_reads:
                if not LEADERS_CHANGE.isdisjoint(map(type, observations)):
                    self._many_lead = len(self._leaders()) > 1
                if self._many_lead:
                    self._read()
                    self.checker.observe(self.cluster.take_observations())
            self.trace = hash((self.trace, self.cluster.now, len(observations)))

    # Who

    def leader(self) -> str:
        """The one leader of the newest term; "" if there is none."""
        return max(self._leaders(), default=(0, ""))[1]

    def _leaders(self) -> list[tuple[int, str]]:
        return [
            (member.raft.term, name)
            for name, member in self.cluster.members.items()
            if member.raft.role == "Leader" and member.alive
        ]

    def _name(self, who: str) -> str:
        name = self.leader() if who == "leader" else who
        return name if name in self.cluster.members else "a"

    def _runs(self, name: str) -> bool:
        return self.cluster.members[name].running

    # Actions

    def _write(self, who: str, size: int = 1) -> None:
        commands = tuple(b"%d.%d" % (self._serial, number) for number in range(size))
        self._propose(who, WriteCommands(commands))

    def _burst(self, who: str) -> None:
        self._write(who, 20)

    def _propose(self, who: str, proposal: Proposal) -> None:
        self._serial += 1
        if self._runs(self._name(who)):
            self.cluster.propose(self._name(who), self._serial, proposal)

    def _read(self) -> None:
        """Ask every member that takes itself for the leader."""
        for _, name in self._leaders():
            if self._runs(name):
                self._serial += 1
                self.checker.read_requested(self._serial)
                try:
                    self.cluster.read(name, self._serial)
                except ChangeRefused:
                    continue

    def _crash(self, who: str) -> None:
        self.cluster.crash(self._name(who))

    def _restart(self, who: str) -> None:
        if self._batch is None:
            down = [name for name, member in self.cluster.members.items() if not member.alive]
            name = self._name(who)
            self.cluster.restart(name if name in down or not down else down[0])

    def _isolate(self, who: str) -> None:
        self.cluster.net.partition([[self._name(who)]])

    def _halve(self, group: str) -> None:
        self.cluster.net.partition([group])

    def _ring(self) -> None:
        """Each member reaches its two neighbours only."""
        names = sorted(self.cluster.members)
        near = {(one, names[index - 1]) for index, one in enumerate(names)}
        near |= {(other, one) for one, other in near}
        self.cluster.net.blocked = frozenset(
            (one, other) for one in names for other in names if (one, other) not in near
        )

    def _block(self, who: str, other: str) -> None:
        """Nothing of one member reaches another one, but the other way it does."""
        self.cluster.net.blocked |= {(self._name(who), other)}

    def _heal(self) -> None:
        self.cluster.net.partition([])
        self.cluster.net.blocked = frozenset()

    def _pause(self, who: str) -> None:
        self.cluster.faults.pause(self._name(who))

    def _resume(self) -> None:
        for name in sorted(self.cluster.members):
            if name in self.cluster.members:  # one that goes on may commit the removal of another
                self.cluster.faults.resume(name)

    def _clock(self, who: str, rate: str) -> None:
        """A clock that runs too fast or too slow."""
        self.cluster.faults.set_clock(self._name(who), rate=float(rate), offset=0)

    def _add(self, name: str) -> None:
        self._propose("leader", AddMember(name, f"{name}:7000"))

    def _remove(self, name: str) -> None:
        self._propose("leader", RemoveMember(name))

    def _transfer(self, name: str) -> None:
        self._propose("leader", TransferLeadership(name))

    def _snapshot(self, who: str) -> None:
        name = self._name(who)
        if self._runs(name):
            self.cluster.snapshot(name)

    def _refuse(self) -> None:
        """The disk refuses the batch that is in flight, or the next one."""
        self._refusing = True

    def _loss(self, share: str) -> None:
        net = self.cluster.net
        net.conditions = structs.replace(net.conditions, loss=float(share))

    def _kill(self, batch: str) -> None:
        """The process is killed: a batch in flight is on disk as a whole, or not at all."""
        if self._batch is not None and batch == "landed":
            self._store(self._batch)
        self._batch = None
        states = {name: disk.read() for name, disk in self._disks.items()}
        self._serial += 1
        self._start(states, self.plan.seed + self._serial, self.cluster.now)

    # The end

    def _heal_and_progress(self) -> None:
        """End all faults. Then a leader commits a write, and all members come to the same state."""
        cluster = self.cluster
        if self._batch is not None:
            self._land()
        self._heal()
        cluster.net.conditions = NetworkConditions(latency=1.0 * MS)
        self.plan = replace(self.plan, disk_ticks=0)
        for name in list(cluster.members):
            cluster.restart(name)
            cluster.faults.set_clock(name, rate=1.0, offset=0)
        self._resume()
        self._observe()
        self._take()
        self._wait(self._led, "no leader has committed an entry")
        self._wait(self._written, "no write is applied by every member")

    def _wait(self, holds: Callable[[], bool], otherwise: str) -> None:
        end = self.cluster.now + PATIENCE
        while not holds():
            if not self._next(end):
                self.checker.require(False, LIVENESS, otherwise)
                return

    def _written(self) -> bool:
        """Whether a write is applied by all voters; it is proposed to each leader that comes up."""
        if not self._led():
            return False
        leader = self.leader()
        raft = self.cluster.members[leader].raft
        if self._placed.term != raft.term:
            result = self.cluster.propose(leader, 0, WriteCommands((b"healed",)))
            assert isinstance(result, Accepted)
            self._placed = result
            self._take()
        members, index = self.cluster.members, self._placed.index
        return all(voter in members and members[voter].raft.commit >= index for voter in raft.log.membership)

    def _led(self) -> bool:
        """Whether there is a leader that has committed an entry of its term."""
        members = self.cluster.members
        leader = self.leader()
        if not leader or members[leader].raft.transfer_target:
            return False
        raft = members[leader].raft
        return raft.log.term(raft.commit) == raft.term
