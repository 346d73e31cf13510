"""A simulated cluster whose members are added, removed, added again, crashed, paused, cut off and killed, through
the daemon's own path."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import trio
from msgspec.structs import replace

from heliosd.cluster.backend import Peer
from heliosd.cluster.metric_commands import RegisterMetric, UpdateMetric
from heliosd.cluster.simulated.backend import SimulatedBackend
from heliosd.config.model import PeerConfig
from heliosd.errors import Conflict, Invalid, NoLeader, NotFound, OutcomeUnknown, StoreFull
from heliosd.protocol.views.simulation import FaultChange

from .simulated_harness import CONFIG, MemoryStore, running

PEERS = ("b", "c", "d", "e")
METRIC = "app_writes"
RUN_SECONDS = 10.0
WATCH_SECONDS = 0.02
"""Mean time between two looks at what a node says of itself."""
READY_SECONDS = 60.0
"""In the cluster's time: a majority that has no leader after that never elects one."""


class MembershipChaos:
    """One seed: several runs of a daemon on one disk, each killed after a random number of saves.

    `faults`: also those of `/api/cluster/simulation`. Then an election may take longer than a run.
    """

    def __init__(self, seed: int, *, faults: bool = False) -> None:
        self.faults = faults
        self.rng = rng = Random(seed)
        self.store = MemoryStore(rng.choice([0.0, 0.0005, 0.002, 0.02]))
        self.peers = PEERS[: rng.choice([1, 2, 2, 3, 4])]
        first = rng.sample(self.peers, rng.randrange(len(self.peers) + 1))
        self.config = replace(
            CONFIG,
            seed=seed + 1,
            peers=tuple(PeerConfig(name, _address(name)) for name in first),
            snapshot_threshold=rng.choice([2, 6, 10_000]),
            latency_ms=rng.choice([0.2, 1.0, 8.0]),
            loss=rng.choice([0.0, 0.0, 0.05]),
        )
        self.answered = 0
        """Writes that were answered."""
        self.unknown = 0
        """Writes whose outcome the caller does not know."""

    async def run(self, kills: int) -> None:
        """Raises `AssertionError` if an answered write is lost, a refused one is done, a node says that it is ready
        and misses writes, or a majority has no leader."""
        for _ in range(kills):
            async with running(self.store, self.config, "a") as backend:
                await self._until_ready(backend)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, backend)
                    nursery.start_soon(self._watch, backend)
                    nursery.start_soon(self._change, backend)
                    if self.faults:
                        nursery.start_soon(self._fail, backend)
                    with trio.move_on_after(RUN_SECONDS):
                        await self.store.saved(self.rng.randrange(1, 80))
                    nursery.cancel_scope.cancel()
            self.store.full = False
        async with running(self.store, self.config, "a") as backend:
            await self._until_ready(backend)
            await self._count(backend)

    async def _until_ready(self, backend: SimulatedBackend) -> None:
        with trio.move_on_after(READY_SECONDS) as waiting:
            while backend.not_ready() is not None:  # noqa: ASYNC110 (a backend has no event for it)
                await trio.sleep(0.005)
        assert not waiting.cancelled_caught, f"not ready: {backend.not_ready()}"
        self._check(backend)

    def _check(self, backend: SimulatedBackend) -> None:
        if backend.not_ready() is None:
            value = backend.metrics.view(METRIC).value if METRIC in backend.metrics else 0.0
            assert self.answered <= value <= self.answered + self.unknown

    async def _watch(self, backend: SimulatedBackend) -> None:
        """At random times, and where a write is answered: to look at every moment would take most of the time."""
        times = Random(self.config.seed)
        while True:
            self._check(backend)
            await trio.sleep(times.expovariate(1 / WATCH_SECONDS))

    async def _write(self, backend: SimulatedBackend) -> None:
        if METRIC not in backend.metrics:
            try:
                await backend.propose(RegisterMetric(name=METRIC, type="counter", at=1.0))
            except (Conflict, NoLeader, OutcomeUnknown, StoreFull):
                return
        while True:
            await self._count(backend)
            await trio.sleep(self.rng.choice([0.0, 0.0, 0.01, 0.05]))

    async def _count(self, backend: SimulatedBackend) -> None:
        self.unknown += 1
        try:
            await backend.propose(UpdateMetric(name=METRIC, at=1.0))
        except (NoLeader, StoreFull):
            self.unknown -= 1
        except (OutcomeUnknown, NotFound):
            pass
        else:
            self.unknown -= 1
            self.answered += 1
            self._check(backend)

    async def _change(self, backend: SimulatedBackend) -> None:
        """Change members, leadership, snapshots and the disk until the kill."""
        while True:
            name = self.rng.choice(self.peers)
            try:
                match self.rng.randrange(9):
                    case 0 | 1 | 2:
                        await backend.add_peer(Peer(name, _address(name)))
                    case 3 | 4 | 5:
                        await backend.remove_peer(name)
                    case 6:
                        await backend.transfer_leadership(self.rng.choice(["a", name]))
                    case 7:
                        await backend.take_snapshot()
                    case _:
                        self.store.full = not self.store.full and self.rng.random() < 0.5
                        await trio.sleep(0.02)
                        self.store.full = False
            except (Conflict, NotFound, NoLeader, OutcomeUnknown, StoreFull):
                pass
            await trio.sleep(self.rng.choice([0.0, 0.0, 0.001, 0.02]))

    async def _fail(self, backend: SimulatedBackend) -> None:
        """Change the faults in force until the kill."""
        rng = self.rng
        while True:
            members = [node.id for node in backend.simulation.report().nodes]
            some = tuple(rng.sample(members, rng.randrange(len(members) + 1)))
            change = rng.choice(
                [
                    FaultChange(crashed=some, paused=()),
                    FaultChange(paused=some, crashed=()),
                    FaultChange(partitions=(some,) if some else ()),
                    FaultChange(disk_latency_ms=dict.fromkeys(some, rng.choice([1.0, 300.0]))),
                    FaultChange(clock_offset_ms=dict.fromkeys(some, rng.choice([50.0, 5000.0]))),
                    FaultChange(clock_rate=dict.fromkeys(some, rng.choice([0.2, 3.0]))),
                    *[FaultChange(crashed=(), paused=(), partitions=(), disk_latency_ms={})] * 4,
                ]
            )
            with suppress(Invalid):  # a member has gone meanwhile
                await backend.simulation.change(change)
            await trio.sleep(rng.choice([0.0, 0.05, 0.3, 2.0]))


def _address(name: str) -> str:
    return f"127.0.0.1:7{ord(name):03}"
