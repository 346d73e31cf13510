"""A hub with its loop running, and sockets that a test opens and blocks by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from unittest.mock import patch

import msgspec
import trio
from msgspec import structs
from trio.testing import wait_all_tasks_blocked
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from heliosd.auth.access import Access
from heliosd.auth.identity import Identity
from heliosd.auth.passwords import DECOY
from heliosd.auth.signing_keys import KeyRing, SigningKey
from heliosd.clock import Instant
from heliosd.cluster.subscribers import ItemQueue, Subscribers
from heliosd.config.model import AuthConfig, Config, Settings, UserConfig
from heliosd.errors import StoreFull
from heliosd.hub import time_slice
from heliosd.hub.client import HubClient
from heliosd.hub.cluster_numbering import ClusterNumbering
from heliosd.hub.connections import Connections
from heliosd.hub.fanout import FanoutEngine
from heliosd.hub.hub import Hub
from heliosd.hub.inbox import HubItem, Tick
from heliosd.hub.local_numbering import LocalNumbering
from heliosd.hub.status_messages import Selection, StatusMessages, selected
from heliosd.hub.transport import Transport
from heliosd.protocol import server_messages
from heliosd.protocol.events import (
    BackendItem,
    Happened,
    MetricsDefined,
    MetricValuesChanged,
    PeerChanged,
    StateChanged,
)
from heliosd.protocol.history import Cursor
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import NOTHING, TO_EVERYTHING, Subscription, Topic
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.store.changes import Change, Saved

ELECTED = Happened(
    StateChanged(old_state="Follower", new_state="Leader", term=2, leader="node-1", member="node-1")
)
ADDED = Happened(PeerChanged(event_type="added", peer_id="node-4", peer_address="127.0.0.1:7003"))
FOREVER = 10**9


class Socket:
    """A transport whose room the test sets; what was written is read back by wsproto's client."""

    direct = (
        False  # so that the hub writes through `write_now`; the direct path has its tests on real sockets
    )
    encrypted = pending = False

    def __init__(self) -> None:
        self.room = FOREVER
        self.written = bytearray()
        self.frames: list[bytes] = []
        self.aborted = self.broken = False
        self._writable = trio.Event()

    def fileno(self) -> int:
        raise AssertionError("only for direct transports")

    def encrypt(self, data: bytes) -> bytes:
        raise AssertionError("only over TLS")

    def keep(self, rest: bytes | memoryview) -> None:
        raise AssertionError("only over TLS")

    def begin_flight(self) -> None:
        raise AssertionError("only over TLS")

    def end_flight(self, rest: bytes | memoryview) -> None:
        raise AssertionError("only over TLS")

    def write_now(self, data: bytes | memoryview) -> int:
        if self.broken or self.aborted:
            raise BrokenPipeError
        taken = min(len(data), self.room)
        self.room -= taken
        self.written += data[:taken]
        if isinstance(data, bytes):
            self.frames.append(data)
        return taken

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.room:
            if self.aborted:
                raise trio.ClosedResourceError
            self._writable = trio.Event()
            await self._writable.wait()

    def open(self) -> None:
        self.room = FOREVER
        self._writable.set()

    def take_one_byte(self) -> None:
        self.room += 1
        self._writable.set()

    def abort(self) -> None:
        self.aborted = True
        self._writable.set()

    def events(self) -> list[object]:
        client = Connection(ConnectionType.CLIENT)
        client.receive_data(bytes(self.written))
        return list(client.events())

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(event.data) for event in self.events() if isinstance(event, TextMessage)]

    def types(self) -> list[str]:
        return [message["type"] for message in self.messages()]

    @property
    def pings(self) -> int:
        return sum(isinstance(event, Ping) for event in self.events())

    @property
    def pongs(self) -> list[bytes]:
        return [bytes(event.payload) for event in self.events() if isinstance(event, Pong)]

    def close_code(self) -> int | None:
        return next((int(e.code) for e in self.events() if isinstance(e, CloseConnection)), None)

    @property
    def closed_last(self) -> bool:
        return isinstance(self.events()[-1], CloseConnection)


@dataclass
class Reader:
    """A client's read pump as the hub knows it."""

    hung_up: bool = False
    lingers: bool = False

    def hang_up(self) -> None:
        self.hung_up = True

    def linger(self) -> None:
        self.lingers = True


class Disk:
    """A store that the test fills up, and the mark for what is in it."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.transactions = 0
        self.full = False
        self.epoch = ""
        self.on_save: Callable[[], None] = lambda: None

    async def save(self, changes: Sequence[Change]) -> None:
        await trio.lowlevel.checkpoint()
        self.on_save()
        if self.full:
            raise StoreFull("no space left on device")
        self.transactions += 1
        self.changes += changes

    def complete_epoch(self) -> str:
        return self.epoch

    async def mark_complete(self, epoch: str) -> None:
        self.epoch = epoch

    async def mark_incomplete(self) -> None:
        self.epoch = ""


class FixedStatus(StatusMessages):
    """Status messages without a backend: the hub is what is tested."""

    def __init__(self) -> None:
        self.metrics: dict[str, MetricView] = {}
        self._now = now
        self._moment = None

    def statuses_as_of_now(self, as_of_seq: int) -> Callable[[Selection], OutgoingMessage]:
        metrics = dict(self.metrics)

        def compose(selection: Selection) -> OutgoingMessage:
            data = {"as_of_seq": as_of_seq, "custom_metrics": selected(metrics, selection)}
            payload = msgspec.json.encode({"type": "status", "data": data})
            return OutgoingMessage("status", Kind.STATUS, NOTHING, payload)

        return compose

    def status_update(self) -> OutgoingMessage:
        return self._value("status_update", Topic.STATUS)

    def latency(self) -> OutgoingMessage:
        return self._value("latency", Topic.LATENCY)

    def uptime(self) -> OutgoingMessage:
        return self._value("uptime", Topic.UPTIME)

    def metric_values(self, names: Iterable[str]) -> OutgoingMessage | None:
        views = {name: self.metrics[name] for name in names if name in self.metrics}
        return server_messages.of_metric_values(views, now().wall) if views else None

    def _value(self, name: str, topic: Topic) -> OutgoingMessage:
        return OutgoingMessage(
            name, Kind.VALUE, topic, json.dumps({"type": name, "fill": "x" * 300}).encode()
        )


class Source:
    """The backend and the ticker: what a test puts in here comes to the hub in this order."""

    def __init__(self, ticks: trio.MemorySendChannel[HubItem], status: FixedStatus) -> None:
        self.numbering: LocalNumbering | ClusterNumbering | None = None
        self.status = status
        self._ticks = ticks
        self._subscribers = Subscribers(256)

    def events(self) -> AbstractAsyncContextManager[ItemQueue]:
        return self._subscribers.listener()

    async def send(self, item: BackendItem | Tick) -> None:
        if isinstance(item, Tick):
            assert self.numbering is not None
            await self.numbering.caught_up()
            await self._ticks.send(item)
        else:
            self.send_nowait(item)
            await self._subscribers.room()

    def send_nowait(self, item: BackendItem) -> None:
        if isinstance(item, MetricValuesChanged):
            self.status.metrics.update(item.metrics)
        elif isinstance(item, Happened) and isinstance(item.event, MetricsDefined):
            for name, view in item.event.metrics.items():
                self.status.metrics.pop(name, None)
                if view is not None:
                    self.status.metrics[name] = view
        self._subscribers.emit(item)


@dataclass
class WallClock:
    """The time as the hub reads it."""

    leap: float = 0.0
    """Seconds by which the wall clock has been set forward."""

    def now(self) -> Instant:
        return Instant(now().wall + self.leap, now().mono)


@dataclass
class House:
    hub: Hub
    inbox: Source
    nursery: trio.Nursery
    settings: Settings
    access: Access
    disk: Disk
    clock: WallClock
    serials: count[int] = field(default_factory=count)

    def join(
        self,
        jti: str = "jti",
        *,
        cursor: Cursor | None = None,
        subscription: Subscription = TO_EVERYTHING,
        identity: Identity | None = None,
        deflates: bool = False,
        transport: Transport | None = None,
    ) -> tuple[HubClient, Socket]:
        """The socket is what the client's connection is, without another `transport`."""
        serial, socket = next(self.serials), Socket()
        client = HubClient(
            serial=serial,
            id=f"c{serial}",
            identity=identity or self.identity(jti),
            address="127.0.0.1:1",
            since=0.0,
            transport=transport or socket,
            send_buffer=self.settings.current.websocket.send_buffer,
            subscription=subscription,
            deflates=deflates,
        )
        client.reader = Reader()
        self.hub.sessions.join(client, cursor)
        return client, socket

    def identity(self, jti: str, expires_at: float = 1e11) -> Identity:
        return structs.replace(self.access.issue("admin", 0).identity, jti=jti, expires_at=expires_at)

    async def publish(self, *items: BackendItem | Tick) -> None:
        for item in items:
            await self.inbox.send(item)
        await wait_all_tasks_blocked()

    async def begin_to_publish(self, item: BackendItem | Tick) -> None:
        """Returns in the middle of the broadcast, which needs clients enough for more than one turn (200 do)."""
        await self.inbox.send(item)
        while not self.hub.publisher.publishing:
            await trio.lowlevel.checkpoint()

    def metric(self, name: str, value: float) -> MetricView:
        return MetricView(
            name=name, type="gauge", help="", labels={}, value=value, created_at="", updated_at=""
        )


class Turns(trio.abc.Instrument):
    """How often a task had its turn from now on."""

    def __init__(self, name: str) -> None:
        """`name` is part of the task's name."""
        self.name = name
        self.count = 0
        trio.lowlevel.add_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += self.name in task.name


def now() -> Instant:
    return Instant(1_700_000_000 + trio.current_time(), trio.current_time())


@contextmanager
def every_time_slice_ends_at_once() -> Iterator[None]:
    """The worst case for what must not be interleaved: in real time few turns of a test would last long enough."""
    with patch.object(time_slice, "TURN_SECONDS", 0.0):
        yield


@asynccontextmanager
async def open_house(engine: FanoutEngine | None = None, *, of_cluster: bool = False) -> AsyncIterator[House]:
    """A hub that numbers its events itself, or `of_cluster` one whose events the cluster numbers."""
    admin = UserConfig(name="admin", password_hash=DECOY, roles=("admin",))
    settings = Settings(Config(auth=AuthConfig(users=(admin,))))
    access = Access(settings, KeyRing(SigningKey(bytes(range(32)))), {})
    disk, status = Disk(), FixedStatus()
    inbox, outbox = trio.open_memory_channel[HubItem](256)
    numbering: LocalNumbering | ClusterNumbering = ClusterNumbering(max_events=100, max_age=3600.0, now=now)
    if not of_cluster:
        numbering = LocalNumbering(
            Saved(), save=disk.save, epoch_marker=disk, max_events=100, max_age=3600.0, now=now
        )
    with every_time_slice_ends_at_once():
        async with trio.open_nursery() as nursery:
            source = Source(inbox, status)
            source.numbering = numbering
            clock = WallClock()
            connections = Connections(settings, clock.now, nursery)
            hub = Hub(
                connections=connections,
                log=numbering.log,
                access=access,
                status_messages=status,
                engine=engine,
            )
            house = House(hub, source, nursery, settings, access, disk, clock)
            await nursery.start(numbering.run, source, inbox.clone())
            await nursery.start(hub.run, outbox)
            nursery.start_soon(hub.token_expiry.run)
            yield house
            nursery.cancel_scope.cancel()
