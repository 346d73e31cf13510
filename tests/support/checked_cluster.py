"""A simulated cluster that is held against Raft's safety properties (paper, figure 3) after every event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from heliosd.raft.messages import Entry, Snapshot
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.disk import Disk
from heliosd.raft.simulation.member import SimulationOptions
from heliosd.raft.simulation.network import NetworkConditions
from heliosd.raft.simulation.observations import (
    EntryApplied,
    Forgotten,
    Installed,
    MemberStarted,
    Observation,
    SoftStateChanged,
)
from heliosd.raft.simulation.proposals import (
    AddMember,
    Proposal,
    RemoveMember,
    TransferLeadership,
    WriteCommands,
)
from heliosd.raft.simulation.write_batch import WriteBatch
from heliosd.raft.state import NEVER, RaftChange, Timing
from heliosd.raft.storage import MemberForgotten, MemberState

MS = 1000
ELECTION = 100 * MS
OPTIONS = SimulationOptions(
    timing=Timing(heartbeat=20 * MS, election=ELECTION),
    conditions=NetworkConditions(latency=1.0 * MS),
    probe_interval=1000 * MS,
    call_timeout=1000 * MS,
    snapshot_threshold=40,
    snapshot_interval=10_000 * MS,
)


class Journal:
    """A state machine that remembers every command."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, data: bytes) -> object:
        self.commands.append(data)
        return len(self.commands)

    def encode(self) -> bytes:
        return b"\n".join(self.commands)

    def restore(self, data: bytes) -> None:
        self.commands = data.split(b"\n") if data else []


def first_states(names: str) -> dict[str, MemberState]:
    """Members that start for the first time, one a letter."""
    membership = {name: f"{name}:7000" for name in names}
    return {name: MemberState(term=1, snapshot=Snapshot(1, 1, membership)) for name in names}


def make_cluster(
    names: str = "abc",
    *,
    seed: int = 1,
    options: SimulationOptions = OPTIONS,
    states: Mapping[str, MemberState] | None = None,
    now: int = 0,
) -> SimulatedCluster:
    """A cluster that starts for the first time, or from these disks."""
    return SimulatedCluster(
        root=names[0],
        states=first_states(names) if states is None else states,
        options=options,
        rng=Random(seed),
        machine=Journal,
        now=now,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """A member at the last check."""

    incarnation: int
    term: int
    commit: int


class CheckedCluster:
    """A cluster whose disk writes at once, and whose invariants are checked after every event."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.history: list[Observation] = []
        """All observations."""
        self._leaders: dict[int, str] = {}
        self._applied: dict[int, Entry] = {}
        self._entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._next: dict[str, int] = {}
        self._seen: dict[str, _Seen] = {}

    # Running

    def killed(self, cluster: SimulatedCluster) -> None:
        """The whole process was killed; `cluster` has started from the disks."""
        self.cluster = cluster
        self._seen.clear()
        self._next = {name: member.raft.commit + 1 for name, member in cluster.members.items()}
        self.check()

    def event(self) -> None:
        """Process the next event, or let time pass if no member is up."""
        due = self.cluster.next_due()
        self.cluster.run_until(due if due != NEVER else self.cluster.now + ELECTION)
        self.check()

    def write(self) -> None:
        """Make all pending writes durable."""
        while (batch := self.cluster.take_writes()) is not None:
            self.cluster.written(batch)
            self.check()

    def run(self, ticks: int) -> None:
        """Let time pass, with a disk that takes no time."""
        end = self.cluster.now + ticks
        while self.cluster.next_due() <= end:
            self.event()
            self.write()
            for name in self.cluster.take_snapshots_due():
                self.cluster.snapshot(name)
            self.write()
        self.cluster.run_until(end)

    def leader(self) -> str:
        """The one leader of the newest term; "" if there is none."""
        leaders = [
            (member.raft.term, name)
            for name, member in self.cluster.members.items()
            if member.alive and member.raft.role == "Leader"
        ]
        return max(leaders)[1] if leaders else ""

    def run_until_led(self) -> str:
        """Let time pass until a leader is elected; at most 50 election timeouts."""
        for _ in range(500):
            if leader := self.leader():
                return leader
            self.run(ELECTION // 10)
        raise AssertionError("no leader was elected")

    def commands(self, name: str) -> list[bytes]:
        machine = self.cluster.members[name].machine
        assert isinstance(machine, Journal)
        return machine.commands

    # Checking

    def check(self) -> None:
        """Check the observations since the last check."""
        happened = self.cluster.take_observations()
        self.history += happened
        for what in happened:
            match what:
                case SoftStateChanged(member=name, state=new) if new.role == "Leader":
                    assert self._leaders.setdefault(new.term, name) == name, "election safety"
                    self._check_leader_completeness(name)
                case EntryApplied(member=name, entry=entry):
                    assert self._applied.setdefault(entry.index, entry) == entry, "state machine safety"
                    expected = self._next.get(name, 2)
                    assert entry.index == expected, f"{name} applied {entry.index}, not {expected}"
                    self._next[name] = entry.index + 1
                case Installed(member=name, snapshot=snapshot):
                    self._next[name] = snapshot.index + 1
                case MemberStarted(member=name, applied=applied):
                    self._next[name] = applied + 1
                case Forgotten(member=name):
                    self._next.pop(name, None)
                    self._votes = {vote: to for vote, to in self._votes.items() if vote[0] != name}
                case _:
                    pass
        for name, member in self.cluster.members.items():
            self._check_member(name, member.incarnation)

    def _check_leader_completeness(self, name: str) -> None:
        log = self.cluster.members[name].raft.log
        for index, entry in self._applied.items():
            assert index <= log.snapshot.index or log.holds(index, entry.term), "leader completeness"

    def _check_member(self, name: str, incarnation: int) -> None:
        raft = self.cluster.members[name].raft
        seen = self._seen.get(name)
        if seen is not None and seen.incarnation == incarnation:
            assert raft.term >= seen.term, "a term never goes back"
            assert raft.commit >= seen.commit, "a commit never goes back"
        self._seen[name] = _Seen(incarnation, raft.term, raft.commit)
        assert raft.commit <= raft.log.last_index
        stored = self.cluster.members[name].disk.read()
        if stored.vote:  # what is not stored was sent to no member
            assert self._votes.setdefault((name, stored.term), stored.vote) == stored.vote, "one vote a term"

    def check_logs(self) -> None:
        """Log matching, over all logs ever seen: one index and term, one entry, one predecessor."""
        for member in self.cluster.members.values():
            log = member.raft.log
            for entry in log.slice(log.first_index, log.last_index):
                before = log.term(entry.index - 1)
                known = self._entries.setdefault((entry.index, entry.term), (entry, before))
                assert known == (entry, before), "log matching"

    def check_disks(self) -> None:
        """Every applied entry is on the disks of a majority of some membership."""
        disks = {name: member.disk.read() for name, member in self.cluster.members.items()}
        for index, entry in self._applied.items():
            holders = sum(
                index <= state.snapshot.index or entry in state.log[index - state.snapshot.index - 1 :][:1]
                for state in disks.values()
            )
            memberships = [
                len(member.raft.log.membership)
                for member in self.cluster.members.values()
                if member.raft.log.membership
            ]
            assert holders >= min(memberships) // 2 + 1 or holders >= 1 == min(memberships), "durability"


class Chaos:
    """Random faults on a checked cluster."""

    def __init__(self, seed: int, names: str = "abc") -> None:
        self.rng = Random(seed)
        conditions = NetworkConditions(
            latency=self.rng.choice([0.5, 2.0, 10.0]) * MS,
            loss=self.rng.choice([0.0, 0.02, 0.3]),
            repeats=self.rng.choice([0.0, 0.1]),
            ordered=self.rng.random() < 0.5,
        )
        threshold = self.rng.choice([5, 40, 10_000])
        self._kill_rate = self.rng.choice([0.0, 0.05, 0.2, 0.4])
        options = replace(OPTIONS, conditions=conditions, snapshot_threshold=threshold)
        self.options = options
        self.checked = CheckedCluster(make_cluster(names, seed=seed, options=options))
        self.names = names
        self._disks = {name: Disk(state) for name, state in first_states(names).items()}
        """What outlives a kill of the process."""
        self._batch: WriteBatch | None = None
        self._serial = 0

    def run(self, events: int) -> None:
        for number in range(events):
            self._disk()
            if self.rng.random() < 0.05:
                self._fault()
            self.checked.event()
            if number % 50 == 0:
                self.checked.check_logs()

    def _disk(self) -> None:
        cluster = self.checked.cluster
        for name in cluster.take_snapshots_due():
            cluster.snapshot(name)
        if self._batch is None:
            self._batch = cluster.take_writes()
        elif self.rng.random() < 0.6:
            if self.rng.random() < 0.02:
                cluster.refused(self._batch)
            else:
                self._land(self._batch)
                cluster.written(self._batch)
            self._batch = None
        self.checked.check()

    def _land(self, batch: WriteBatch) -> None:
        for change in batch.changes:
            if isinstance(change, MemberForgotten):
                self._disks.pop(change.member, None)
            else:
                assert isinstance(change, RaftChange)
                self._disks.setdefault(change.member, Disk(MemberState())).write(change)

    def _kill(self) -> None:
        """Kill the process: a batch in flight is on disk as a whole, or not at all."""
        if self._batch is not None and self.rng.random() < 0.5:
            self._land(self._batch)
        self._batch = None
        states = {name: disk.read() for name, disk in self._disks.items()}
        seed, now = self.rng.getrandbits(32), self.checked.cluster.now
        self.checked.killed(make_cluster(self.names, seed=seed, options=self.options, states=states, now=now))

    def _fault(self) -> None:
        if self.rng.random() < self._kill_rate:
            self._kill()
        cluster, rng = self.checked.cluster, self.rng
        name = rng.choice(sorted(cluster.members))
        match rng.randrange(10):
            case 0:
                if rng.random() < 0.5:
                    cluster.crash(name)
            case 1 | 2:
                if self._batch is None:
                    cluster.restart(name)
            case 3:
                members = sorted(cluster.members)
                rng.shuffle(members)
                cut = rng.randrange(len(members))
                cluster.net.partition([members[:cut]] if rng.random() < 0.4 else [])
            case 4 if cluster.members[name].alive:
                cluster.snapshot(name)
            case _:
                self._serial += 1
                cluster.propose(name, self._serial, self._proposal())
        self.checked.check()

    def _proposal(self) -> Proposal:
        match self.rng.randrange(10):
            case 0:
                return TransferLeadership(self.rng.choice(["", *self.names]))
            case 1:
                new = self.rng.choice("bcdefg")
                return AddMember(new, f"{new}:7000")
            case 2:
                return RemoveMember(self.rng.choice("bcdefg"))
            case _:
                return WriteCommands(
                    tuple(b"%d.%d" % (self._serial, n) for n in range(self.rng.randrange(1, 4)))
                )

    def heal(self) -> None:
        """End all faults. Then the cluster makes progress, and all members come to the same state."""
        checked, cluster = self.checked, self.checked.cluster
        if self._batch is not None:
            self._land(self._batch)
            cluster.written(self._batch)
            self._batch = None
        cluster.net.partition([])
        cluster.net.conditions = NetworkConditions(latency=1.0 * MS)
        for name in list(cluster.members):
            cluster.restart(name)
        checked.run(10 * ELECTION)
        leader = checked.run_until_led()
        cluster.propose(leader, -1, WriteCommands((b"healed",)))
        checked.run(10 * ELECTION)
        checked.check_logs()
        checked.check_disks()
        members = cluster.members[checked.leader()].raft.log.membership
        assert {tuple(checked.commands(name)) for name in members} == {tuple(checked.commands(leader))}
        assert checked.commands(leader)[-1] == b"healed"
        assert set(cluster.members) == set(members), "members that no configuration needs are gone"
