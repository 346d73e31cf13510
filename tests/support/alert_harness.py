"""The alerts of one heliosd on the mock clock: its event log, its disk, and a receiver that may be down."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import trio

from heliosd.alerts.watcher import AlertWatcher
from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.cluster.custom_metrics import MetricSet
from heliosd.config.loader import parse
from heliosd.config.model import AlertConfig, Settings
from heliosd.errors import NotDelivered, StoreFull
from heliosd.hub.event_log import EventLog
from heliosd.protocol.events import Event, PeerChanged, SnapshotTaken, Stamped, StateChanged
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.server_messages import of_event
from heliosd.protocol.views.snapshots import SnapshotEvent
from heliosd.protocol.views.status import ClusterStatus, LeaderView
from heliosd.raft.roles import Role
from heliosd.store.changes import Change, Saved, ValueSet

from .rest_server import LoneBackend, now


class ClusterStandIn(LoneBackend):
    """A cluster whose leader and healthy members the test says: node-1, which is this node, and its peers."""

    def __init__(self) -> None:
        super().__init__()
        self.leader = "node-1"
        self.silent: set[str] = set()

    def fall_silent(self, peer: str) -> None:
        """It does not answer any more, until it is not in `silent`."""
        self.silent.add(peer)
        for _ in range(3):
            self.latency.failed(peer, "probe", now())

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Until `read` or the end of the block it knows nothing, as after a start while etcd is away."""
        self._read = self.peers, self.metrics, self.leader, self.reason
        self.complete, self.peers, self.metrics = False, {}, MetricSet()
        self.leader, self.reason = "", "etcd has not been read yet"
        try:
            yield
        finally:
            self.read()

    def read(self) -> None:
        self.complete = True
        self.peers, self.metrics, self.leader, self.reason = self._read

    def status(self) -> ClusterStatus:
        if not self.complete:
            status = super().status()
            unknown = msgspec.structs.replace(status.node, state="Unknown")
            return msgspec.structs.replace(status, node=unknown, leader=LeaderView())
        for peer in self.peers.keys() - self.silent:
            self.latency.succeeded(peer, "probe", 0.001, now())
        status = super().status()
        silent = status.node.id in self.silent
        state: Role = "Unknown" if silent else "Follower"
        node = msgspec.structs.replace(status.node, state=state, voter=True, healthy=not silent)
        return msgspec.structs.replace(status, node=node, leader=LeaderView(self.leader))


def lost(leader: str) -> StateChanged:
    return StateChanged(old_state="Leader", new_state="Unknown", term=1, leader="", member=leader)


def elected(leader: str) -> StateChanged:
    return StateChanged(old_state="Follower", new_state="Leader", term=2, leader=leader, member=leader)


@dataclass
class AlertHarness:
    """What outlives a kill: the cluster, its event log, the disk, and the receiver with what it `got`."""

    config: str
    cluster: ClusterStandIn = field(default_factory=ClusterStandIn)
    epoch: str = "e1"
    events: list[OutgoingMessage] = field(default_factory=list)
    disk: dict[str, bytes] = field(default_factory=dict)
    disk_full: bool = False
    disk_seconds: float = 0.0
    """Until it answers."""
    on_save: Callable[[], None] = lambda: None
    """Called while something is being stored."""
    down: bool = False
    """The receiver takes nothing. Otherwise it takes what comes, and its answer is lost one time in seven."""
    deaf: set[str] = field(default_factory=set)
    """Alerts whose receiver takes nothing."""
    got: list[dict[str, Any]] = field(default_factory=list)
    log: EventLog | None = None
    watcher: AlertWatcher | None = None
    settings: Settings | None = None
    attempts: int = 0
    leap_seconds: float = 0.0
    """By how much the wall clock is ahead."""

    @asynccontextmanager
    async def running(self, *, readable: bool = True) -> AsyncIterator[AlertWatcher]:
        """heliosd runs; at the end it is killed. The log can be read at once if it is `readable`, else from
        `begin_log` on."""
        self.log = EventLog(max_events=1000, max_age=1e12)
        if readable:
            self.begin_log()
        self.settings = Settings(parse(self.config))
        self.watcher = AlertWatcher(
            settings=self.settings,
            event_log=self.log,
            backend=cast(Backend, self.cluster),
            saved=Saved(values=dict(self.disk)),
            save=self._save,
            deliver=self._deliver,
            now=self.now,
            rng=random.Random(1),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watcher.run)
            yield self.watcher
            nursery.cancel_scope.cancel()
        self.log = None

    def begin_log(self) -> None:
        assert self.log is not None
        self.log.begin(self.epoch, len(self.events), self.events[-1000:])

    def now(self) -> Instant:
        moment = now()
        return Instant(moment.wall + self.leap_seconds, moment.mono)

    def publish(self, event: Event, *, ago: float = 0.0) -> str:
        """The event of so many seconds ago is in the log; returns its epoch and number."""
        message = of_event(Stamped(len(self.events) + 1, self.now().wall - ago, event))
        self.events.append(message)
        if self.log is not None:
            self.log.history.keep(message, self.now().wall)
        return f"{self.epoch}:{len(self.events)}"

    def hear(self, other: AlertHarness) -> None:
        """What is new in the log of the cluster that both watch."""
        assert self.log is not None
        for message in other.events[self.log.history.seq :]:
            self.log.history.keep(message, self.now().wall)

    def lose(self) -> str:
        old, self.cluster.leader = self.cluster.leader, ""
        return self.publish(lost(old))

    def elect(self, leader: str = "node-2", *, ago: float = 0.0) -> str:
        self.cluster.leader = leader
        return self.publish(elected(leader), ago=ago)

    def peer(self, change: Any, peer: str = "node-2") -> str:
        """A peer's change, as the log and the status say it."""
        if change == "healthy":
            self.cluster.silent.discard(peer)
        if change == "unhealthy":
            self.cluster.fall_silent(peer)
        return self.publish(PeerChanged(event_type=change, peer_id=peer, peer_address="127.0.0.1:7001"))

    def snapshot(self, *, success: bool) -> str:
        event = SnapshotEvent(
            timestamp="2027-01-15T08:00:00.000000Z",
            type="created" if success else "error",
            snapshot_id="",
            index=0,
            term=0,
            size=0,
            duration_ms=0.0,
            success=success,
        )
        return self.publish(SnapshotTaken(snapshot=event))

    @property
    def ids(self) -> list[str]:
        """What the receiver got, without what it can recognise as sent twice."""
        return list(dict.fromkeys(each["id"] for each in self.got))

    def ids_before(self, index: int) -> set[str]:
        return {each["id"] for each in self.got[:index]}

    async def _save(self, changes: Sequence[Change]) -> None:
        await trio.sleep(0.001)
        self.on_save()
        await trio.sleep(self.disk_seconds)
        if self.disk_full:
            raise StoreFull("no space left on device")
        for change in changes:
            assert isinstance(change, ValueSet)
            if change.body is None:
                self.disk.pop(change.name, None)
            else:
                self.disk[change.name] = change.body

    async def _deliver(self, alert: AlertConfig, body: bytes) -> None:
        await trio.sleep(0.01)
        self.attempts += 1
        if self.down or alert.name in self.deaf:
            raise NotDelivered("connection refused")
        self.got.append({"to": alert.url or alert.command[0], **msgspec.json.decode(body)})
        await trio.sleep(0.01)
        if self.attempts % 7 == 0:
            raise NotDelivered("the answer did not come")
