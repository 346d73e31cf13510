"""Shared by the tests of the simulated backend: a store in memory, and a backend on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import trio
from msgspec.structs import replace

from heliosd.clock import Instant
from heliosd.cluster.latency import LatencyTracker
from heliosd.cluster.metric_commands import RegisterMetric, UpdateMetric
from heliosd.cluster.simulated.backend import SimulatedBackend
from heliosd.cluster.snapshots import SnapshotTracker
from heliosd.cluster.uptime import UptimeTracker
from heliosd.config.model import PeerConfig, SimulatedConfig
from heliosd.errors import StoreFull
from heliosd.protocol.events import Event, Happened, MetricValuesChanged, StateComplete, Value
from heliosd.raft.simulation.disk import Disk
from heliosd.raft.storage import HardState, LogSuffix, MemberForgotten, MemberState, SnapshotSaved
from heliosd.store.changes import Change, RecordAdded, RecordsCleared, Saved, TokenRevoked, ValueSet

CONFIG = SimulatedConfig(seed=7)
ALONE = replace(CONFIG, peers=())
TWO = replace(CONFIG, peers=(PeerConfig("node-2", "127.0.0.1:7001"),))


class MemoryStore:
    """A store that keeps everything in memory, takes `seconds` for each save, and can be full."""

    def __init__(self, seconds: float = 0.002) -> None:
        self.seconds = seconds
        self.full = False
        self.saves: list[tuple[Change, ...]] = []
        self._on_save = trio.Event()
        self._disks: dict[str, Disk] = {}
        self._records: dict[str, dict[int, bytes]] = {}
        self._values: dict[str, bytes] = {}

    async def save(self, changes: Sequence[Change]) -> None:
        await trio.sleep(self.seconds)
        if self.full:
            raise StoreFull("the disk is full")
        self.saves.append(tuple(changes))
        for change in changes:
            self._apply(change)
        self._on_save.set()
        self._on_save = trio.Event()

    async def saved(self, times: int) -> None:
        """Return as soon as so many more saves are done."""
        target = len(self.saves) + times
        while len(self.saves) < target:
            await self._on_save.wait()

    def _apply(self, change: Change) -> None:
        match change:
            case HardState() | LogSuffix() | SnapshotSaved():
                self._disks.setdefault(change.member, Disk(MemberState())).write(change)
            case MemberForgotten(member):
                self._disks.pop(member, None)
            case RecordAdded(kind, key, body, keep):
                records = self._records.setdefault(kind, {})
                records[key] = body
                for old in sorted(records)[:-keep]:
                    del records[old]
            case RecordsCleared(kind):
                self._records.pop(kind, None)
            case ValueSet(name, None):
                self._values.pop(name, None)
            case ValueSet(name, bytes(body)):
                self._values[name] = body
            case ValueSet() | TokenRevoked():
                raise AssertionError(change)

    def load(self) -> Saved:
        return Saved(
            members={member: disk.read() for member, disk in self._disks.items()},
            records={kind: tuple(rows[key] for key in sorted(rows)) for kind, rows in self._records.items()},
            values=dict(self._values),
        )


def make_backend(
    store: MemoryStore, config: SimulatedConfig = CONFIG, node: str = "node-1", buffer: int = 256
) -> SimulatedBackend:
    saved = store.load()
    return SimulatedBackend(
        node_id=node,
        config=config,
        saved=saved,
        save=store.save,
        latency=LatencyTracker(),
        uptime=UptimeTracker(node, saved),
        snapshots=SnapshotTracker(
            node, saved, interval=config.snapshot_interval, threshold=config.snapshot_threshold
        ),
        now=lambda: Instant(1_800_000_000.0 + trio.current_time(), trio.current_time()),
        buffer=buffer,
    )


@asynccontextmanager
async def running(
    store: MemoryStore | None = None,
    config: SimulatedConfig = CONFIG,
    node: str = "node-1",
    *,
    stores_events: bool = True,
) -> AsyncIterator[SimulatedBackend]:
    """A backend that runs for the length of the block, and then stops as if killed; before any of its events was
    stored, unless `stores_events`."""
    store = store or MemoryStore()
    backend = make_backend(store, config, node)
    async with trio.open_nursery() as nursery:
        if stores_events:
            await nursery.start(store_markers, backend, store)
        await nursery.start(backend.run)
        yield backend
        nursery.cancel_scope.cancel()


async def store_markers(
    backend: SimulatedBackend, store: MemoryStore, *, task_status: trio.TaskStatus[None]
) -> None:
    """Store the marker of each event, as the hub does."""
    async with backend.events() as events:
        task_status.started()
        async for item in events:
            if isinstance(item, Happened) and item.applied_marker:
                with suppress(StoreFull):
                    await store.save(item.applied_marker)


async def ready(backend: SimulatedBackend) -> None:
    with trio.fail_after(60):
        while backend.not_ready() is not None:  # noqa: ASYNC110 (a backend has no event for it)
            await trio.sleep(0.01)


async def follow(
    backend: SimulatedBackend, into: list[Event | Value], task_status: trio.TaskStatus[None]
) -> None:
    async with backend.events() as events:
        task_status.started()
        async for event in events:
            if not isinstance(event, StateComplete):
                assert isinstance(event, Happened | MetricValuesChanged)
                into.append(event.event if isinstance(event, Happened) else event)


def register(name: str = "app_requests") -> RegisterMetric:
    return RegisterMetric(name=name, type="counter", at=1_800_000_000.0)


def count(name: str = "app_requests", delta: float = 1.0) -> UpdateMetric:
    return UpdateMetric(name=name, delta=delta, at=1_800_000_001.0)
