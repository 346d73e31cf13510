"""Both backends for the contract suite: running, ready, with all that they publish recorded."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import trio

from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.cluster.etcd.backend import EtcdBackend
from heliosd.cluster.latency import LatencyTracker
from heliosd.cluster.metric_commands import RegisterMetric, UpdateMetric
from heliosd.cluster.simulated.backend import SimulatedBackend
from heliosd.cluster.snapshots import SnapshotTracker
from heliosd.cluster.uptime import UptimeTracker
from heliosd.config.model import EtcdConfig, HistoryConfig
from heliosd.errors import NoLeader
from heliosd.protocol.events import (
    BackendItem,
    Happened,
    LogReset,
    MetricValuesChanged,
    Provisional,
    Stamped,
    StateComplete,
)
from heliosd.protocol.server_messages import of_event
from heliosd.store.changes import LoggedEvent

from .etcd_cluster import EtcdCluster
from .simulated_harness import CONFIG, MemoryStore

READY_SECONDS = 60.0


def now() -> Instant:
    return Instant(time.time(), trio.current_time())


@dataclass
class Subject:
    """A running backend. `published` are its events in order, `moved` the newest value of each metric."""

    backend: Backend
    own: str
    """The id of this node as its cluster knows it."""
    published: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    moved: dict[str, float] = field(default_factory=dict)
    seqs: list[int] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    """Why metrics were deleted, where an event says so."""
    _news: trio.Event = field(default_factory=trio.Event)

    def take(self, item: BackendItem) -> None:
        match item:
            case Happened(event=event):
                self._event(of_event(Stamped(1, 0.0, event)).payload)
            case LoggedEvent():
                self.seqs.append(item.seq)
                self._event(item.payload)
            case MetricValuesChanged(metrics=metrics):
                self.moved |= {name: view.value for name, view in metrics.items()}
            case LogReset() | Provisional() | StateComplete():
                pass
        self._news.set()
        self._news = trio.Event()

    def _event(self, payload: bytes) -> None:
        message = json.loads(payload)
        self.published.append((message["type"], message["data"]))
        self.reasons += [message["reason"]] if "reason" in message else []

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [data for of, data in self.published if of == kind]

    async def until(self, holds: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until it holds; it is checked whenever something was published."""
        with trio.fail_after(seconds):
            while not holds():
                with trio.move_on_after(0.1):
                    await self._news.wait()

    async def follow(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with self.backend.events() as events:
            task_status.started()
            async for item in events:
                self.take(item)


def etcd_backend(
    cluster: EtcdCluster,
    folder: Path,
    store: MemoryStore,
    revoked: Callable[[str, float], None],
    node: str = "etcd-1",
    **options: Any,
) -> EtcdBackend:
    return EtcdBackend(
        node_id=node,
        config=EtcdConfig(endpoints=tuple(m.client_url for m in cluster.members), **options),
        history=HistoryConfig(),
        directory=folder,
        saved=store.load(),
        save=store.save,
        revoked=revoked,
        now=now,
        buffer=256,
    )


def simulated_backend(store: MemoryStore) -> SimulatedBackend:
    saved = store.load()
    return SimulatedBackend(
        node_id="node-1",
        config=CONFIG,
        saved=saved,
        save=store.save,
        latency=LatencyTracker(),
        uptime=UptimeTracker("node-1", saved),
        snapshots=SnapshotTracker("node-1", saved, interval=300.0, threshold=10_000),
        now=now,
        buffer=256,
    )


@asynccontextmanager
async def running(backend: SimulatedBackend | EtcdBackend, revoked: list[str]) -> AsyncIterator[Subject]:
    """Ready, with every metric deleted, and nothing published so far."""
    async with trio.open_nursery() as nursery:
        subject = Subject(backend, "", revoked=revoked)
        await nursery.start(subject.follow)
        await nursery.start(backend.run)
        await subject.until(lambda: backend.not_ready() is None, READY_SECONDS)
        subject.own = backend.status().node.id
        yield subject
        with trio.fail_after(60):
            await backend.close()
        nursery.cancel_scope.cancel()


T = TypeVar("T")


async def patiently(change: Callable[[], Awaitable[T]], seconds: float = 15.0) -> T:
    """etcd changes its members only once all have been connected for five seconds, and with a leader, which a
    new member or a busy machine may depose for a moment: so a 503 is tried again."""
    with trio.fail_after(seconds):
        while True:
            try:
                return await change()
            except NoLeader:
                await trio.sleep(0.3)  # etcd does not report when it would agree


def register(name: str, kind: Any = "counter") -> RegisterMetric:
    return RegisterMetric(name=name, type=kind, at=time.time())


def add(name: str, delta: float = 1.0) -> UpdateMetric:
    return UpdateMetric(name=name, delta=delta, at=time.time())


def put(name: str, value: float) -> UpdateMetric:
    return UpdateMetric(name=name, value=value, at=time.time())
