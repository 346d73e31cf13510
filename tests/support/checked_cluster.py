"""A simulated cluster that a test drives, with all invariants checked after every step."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from heliosd.raft.messages import Snapshot
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.member import SimulationOptions
from heliosd.raft.simulation.network import NetworkConditions
from heliosd.raft.simulation.observations import Observation
from heliosd.raft.state import NEVER, Timing
from heliosd.raft.storage import MemberState

from .raft_checker import Checker

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


class CheckedCluster:
    """A cluster whose disk writes at once, and whose invariants are checked after every step."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.history: list[Observation] = []
        """All observations."""
        self._checker = Checker(state_of=lambda data: len(data.split(b"\n")) if data else 0)
        self._checker.attach(cluster)

    # Running

    def event(self) -> None:
        """Process the next event, or let time pass if no member is up."""
        self.check()
        due = self.cluster.next_due()
        if due == NEVER:
            self.cluster.run_until(self.cluster.now + ELECTION)
        else:
            self.cluster.run_event(due)
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

    def check(self) -> None:
        """Check the observations since the last check."""
        happened = self.cluster.take_observations()
        self.history += happened
        self._checker.observe(happened)
