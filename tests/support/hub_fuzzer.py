"""The real hub under random actions, each client of it followed by `order_model.py`.

A seed makes a plan: a list of actions with all their choices in it. So a plan can be run again, and shrunk: actions
are left out as long as the rest still breaks a rule.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec
import trio
from msgspec import UNSET
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.auth.access import Access
from heliosd.auth.passwords import DECOY
from heliosd.auth.signing_keys import KeyRing, SigningKey
from heliosd.cluster.subscribers import Subscribers
from heliosd.config.model import AuthConfig, Config, HistoryConfig, Settings, UserConfig, WebSocketConfig
from heliosd.hub import client as hub_client
from heliosd.hub import delivery, direct_writes, event_log, fanout, time_slice, write_pump
from heliosd.hub.client import HubClient
from heliosd.hub.cluster_numbering import ClusterNumbering
from heliosd.hub.connections import Connections
from heliosd.hub.direct_writes import DirectWrites
from heliosd.hub.flights import Flights
from heliosd.hub.hub import Hub
from heliosd.hub.inbox import EventsLost, HubItem, NewEpoch, Tick
from heliosd.hub.local_numbering import LocalNumbering
from heliosd.hub.status_messages import Selection, selected
from heliosd.protocol import client_commands
from heliosd.protocol.events import (
    BackendItem,
    Happened,
    LogReset,
    MetricsDefined,
    MetricValuesChanged,
    PeerChanged,
    StateChanged,
)
from heliosd.protocol.history import Cursor, History
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import NOTHING, Subscription
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.store.changes import LoggedEvent, Saved

from .client_record import Filter, Question, Violation
from .fake_transports import FOREVER, Descriptors, FakeSender, FakeSocket, FakeStream
from .hub_harness import Disk, FixedStatus, Reader, now
from .order_model import ClientModel
from .server_record import Event, Server

KEYS = {"state_change": "state_changes", "peer_change": "peer_changes", "status_update": "status"}
EVERYTHING = dict.fromkeys(
    ("status", "latency", "uptime", "snapshot", "custom_metrics", "state_changes", "peer_changes"), True
)
SUBSCRIPTIONS: tuple[Mapping[str, Any], ...] = (
    EVERYTHING,
    EVERYTHING,
    {"peer_changes": True},
    {"custom_metrics": {"names": ["a*"]}, "state_changes": True},
    {},
    {**EVERYTHING, "custom_metrics": {"min_interval": 20}, "latency": {"min_interval": 30}},
    {"custom_metrics": {"names": ["a*"], "min_interval": 10}, "status": {"min_interval": 5}},
)
METRICS = ("a1", "a2", "b1")
ACTIONS = {
    "event": 30,
    "set": 20,
    "tick": 8,
    "join": 12,
    "leave": 3,
    "room": 20,
    "break": 1,
    "ask": 20,
    "wait": 8,
    "disk": 3,
    "reset": 3,
    "quiet": 2,
}
TICKS = {Tick.STATUS: "status_update", Tick.LATENCY: "latency", Tick.UPTIME: "uptime"}
QUIET_SECONDS = 100.0
SUBSCRIBE = delivery.subscribe


@dataclass(frozen=True)
class Action:
    """What is done, two numbers that say to whom and how, and for how many steps the others may run then."""

    name: str
    who: int
    how: int
    steps: int


@dataclass(frozen=True)
class Plan:
    of_cluster: bool
    disconnect: bool
    alike: bool
    """All clients are WebSockets with the same subscription: one broadcast writes to all of them."""
    actions: tuple[Action, ...]
    flights: bool = False
    """Another thread writes, as it were."""
    batch_bytes: int = 64 * 1024
    """How much is joined into one write."""


def plan_of(seed: int) -> Plan:
    rng = random.Random(seed)
    names = rng.choices(list(ACTIONS), list(ACTIONS.values()), k=rng.randint(20, 70))
    joins = [Action("join", rng.randrange(100), rng.randrange(10**6), 0) for _ in range(rng.randint(1, 5))]
    actions = [
        Action(name, rng.randrange(100), rng.randrange(10**6), rng.choice((0, 1, 2, 5, 20, -1)))
        for name in names
    ]
    kinds = rng.random() < 0.4, rng.random() < 0.1, rng.random() < 0.3
    flights, batch_bytes = rng.random() < 0.5, rng.choice((500, 64 * 1024))
    return Plan(*kinds, (*joins, *actions), flights=flights, batch_bytes=batch_bytes)


def filter_of(wanted: Mapping[str, Any]) -> Filter:
    """A subscription in words of the model."""

    def filtered(kind: str, data: Any) -> Any:
        asked = wanted.get(KEYS.get(kind, kind), False)
        if not asked or data is None:
            return True if asked else None
        if kind == "custom_metrics" and isinstance(asked, dict) and "names" in asked:
            return {
                n: v for n, v in data.items() if any(fnmatchcase(n, glob) for glob in asked["names"])
            } or None
        return data

    return filtered


def values_of(metrics: Mapping[str, MetricView]) -> dict[str, float]:
    return {name: view.value for name, view in metrics.items()}


class FakeStatus(FixedStatus):
    """Composes from the model's server, so that every message says of which moment it is."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def statuses_as_of_now(self, as_of_seq: int) -> Callable[[Selection], OutgoingMessage]:
        server, all_metrics = self._server, dict(self.metrics)
        data = {"as_of_seq": as_of_seq, "moment": server.moment, "leader": server.leader}
        data |= {"peers": sorted(server.peers), "all_metrics": values_of(all_metrics)}

        def compose(selection: Selection) -> OutgoingMessage:
            metrics = values_of(selected(all_metrics, selection))
            payload = msgspec.json.encode({"type": "status", "data": {**data, "metrics": metrics}})
            return OutgoingMessage("status", Kind.STATUS, NOTHING, payload)

        return compose

    def status_update(self) -> OutgoingMessage:
        return self._whole(super().status_update())

    def latency(self) -> OutgoingMessage:
        return self._whole(super().latency())

    def uptime(self) -> OutgoingMessage:
        return self._whole(super().uptime())

    def _whole(self, value: OutgoingMessage) -> OutgoingMessage:
        payload = json.dumps({"type": value.type, "data": {"moment": self._server.moment}}).encode()
        return OutgoingMessage(value.type, value.kind, value.topic, payload)


@dataclass
class Follower:
    """One client, its connection, and what it may be sent."""

    client: HubClient
    transport: FakeSocket | FakeStream
    reader: Reader = field(default_factory=Reader)
    model: ClientModel | None = None
    read: int = 0
    held: bool = False
    left: bool = False

    def notice_hold(self, history: History) -> None:
        """Let the model know whether the client's token has ended."""
        if self.client.held and not self.held and self.model is not None:
            self.model.hold(history.epoch, history.seq)
        self.held = self.client.held

    def narrow(self) -> None:
        """Let the model know that a subscription takes effect, and what has left the queue before it."""
        if self.model is not None:
            on_the_way = self.client.sent - self.transport.frames
            self.model.narrow(on_the_way + len(self.transport.messages) - self.read)

    def check(self, history: History) -> None:
        """Give the model what has come."""
        self.notice_hold(history)
        for message in self.transport.messages[self.read :]:
            if self.model is None:
                raise Violation(f"{message['type']} before it joined")
            if message["type"] != "token_expiring":
                self.model.receive(message)
            self.read += 1


class World:
    """A hub with its backend, its clients, and all that is true."""

    def __init__(self, plan: Plan, nursery: trio.Nursery, descriptors: Descriptors) -> None:
        websocket = WebSocketConfig(
            messages_per_second=1e6,
            messages_burst=10**6,
            slow_consumer="disconnect" if plan.disconnect else "gap",
            write_timeout=1e6,
            read_timeout=1e9,
        )
        admin = UserConfig(name="admin", password_hash=DECOY, roles=("admin",))
        settings = Settings(
            Config(auth=AuthConfig(users=(admin,)), websocket=websocket, history=HistoryConfig())
        )
        self.access = Access(settings, KeyRing(SigningKey(bytes(range(32)))), {})
        self.plan, self.nursery, self.descriptors = plan, nursery, descriptors
        self.server, self.disk = Server(), Disk()
        self.status = FakeStatus(self.server)
        self.subscribers = Subscribers(256)
        limits: dict[str, Any] = {"max_events": 12, "max_age": 1e9, "now": now}
        self.numbering: LocalNumbering | ClusterNumbering = (
            ClusterNumbering(**limits)
            if plan.of_cluster
            else LocalNumbering(Saved(), save=self.disk.save, epoch_marker=self.disk, **limits)
        )
        self.hub = Hub(
            connections=Connections(settings, now, nursery),
            log=self.numbering.log,
            access=self.access,
            status_messages=self.status,
            engine=Flights(FakeSender(descriptors), landed_at_once=2) if plan.flights else DirectWrites(),
        )
        self.followers: list[Follower] = []
        self.everyone: list[Follower] = []
        self.asked = 0
        self.epoch, self.logged, self.resets = "", 0, 0
        """Of the cluster's log: epoch, newest number, and how often it was reset."""
        self.moments: list[int] = []
        """The moments of the events that have no number yet."""
        self.inbox, outbox = trio.open_memory_channel[HubItem](256)
        self._recorded, self._to_record = trio.open_memory_channel[HubItem](0)
        self._outbox = outbox

    def subscribe(self, client: HubClient, subscription: Subscription) -> None:
        """In place of `delivery.subscribe`, at the moment at which a subscription takes effect."""
        next(follower for follower in self.followers if follower.client is client).narrow()
        SUBSCRIBE(client, subscription)

    async def start(self) -> None:
        self._epoch = self.hub.log.history.epoch
        self.server.starts[self._epoch] = 0
        await self.nursery.start(self.numbering.run, self, self._recorded)
        self.nursery.start_soon(self._record)
        await self.nursery.start(self.hub.run, self._outbox)
        self.nursery.start_soon(self.hub.token_expiry.run)
        self.nursery.start_soon(self.hub.connections.ping_all)

    def events(self) -> Any:
        """As `Backend.events`."""
        return self.subscribers.listener()

    async def _record(self) -> None:
        """Note every numbered event on its way to the hub."""
        async for item in self._to_record:
            match item:
                case OutgoingMessage(seq=int(seq)):
                    self._note(seq, item)
                case NewEpoch():
                    self._epoch = item.epoch
                    self.server.starts[item.epoch] = item.seq
                    self.server.epochs[item.epoch] = {}
                    for event in item.kept:
                        assert event.seq is not None
                        self._note(event.seq, event)
                case EventsLost():
                    for seq in range(item.first, item.last + 1):
                        self.server.epochs.setdefault(self._epoch, {})[seq] = Event("lost", None)
                case _:
                    pass
            await self.inbox.send(item)

    def _note(self, seq: int, message: OutgoingMessage) -> None:
        event = Event(message.type, json.loads(message.payload)["data"], self.moments.pop(0))
        self.server.epochs.setdefault(self._epoch, {})[seq] = event

    # -- what may happen -------------------------------------------------------------------------------------------

    async def do(self, action: Action) -> None:
        await getattr(self, f"do_{action.name}")(action.who, action.how)
        if action.steps < 0:
            await wait_all_tasks_blocked()
        for _ in range(action.steps):
            await trio.lowlevel.checkpoint()
        self.check()

    def check(self) -> None:
        """What has come to the clients so far. Not in the middle of a broadcast: questions are noted at its end."""
        if self.hub.publisher.publishing:
            return
        for follower in list(self.followers):
            follower.check(self.hub.log.history)
            if follower.client.close_reason is not None or follower.reader.hung_up:
                self._leave(follower)

    def _one(self, who: int) -> Follower | None:
        return self.followers[who % len(self.followers)] if self.followers else None

    async def do_event(self, who: int, how: int) -> None:
        """One change of the cluster, or many at once."""
        for number in range(1 if how % 4 else how % 23):
            self._change(who + number, how // 4 + number)
        await trio.lowlevel.checkpoint()

    def _change(self, who: int, how: int) -> None:
        server, name = self.server, METRICS[who % len(METRICS)]
        server.moment += 1
        match how % 4:
            case 0:
                server.leader = f"node-{how % 5}"
                change = StateChanged(
                    old_state="Follower", new_state="Leader", term=2, leader=server.leader, member="m"
                )
                self._emit(change, {"leader": server.leader})
            case 1:
                peer, added = f"node-{who % 4}", f"node-{who % 4}" not in server.peers
                (server.peers.add if added else server.peers.discard)(peer)
                kind: Any = "added" if added else "removed"
                self._emit(
                    PeerChanged(event_type=kind, peer_id=peer, peer_address=""),
                    {"event_type": kind, "peer_id": peer},
                )
            case _:
                view = None if name in server.metrics else self._view(name)
                if view is None:
                    del server.metrics[name], self.status.metrics[name]
                else:
                    server.metrics[name], self.status.metrics[name] = server.moment, view
                self._emit(
                    MetricsDefined(metrics={name: view}), {name: view and {"value": view.value, "labels": {}}}
                )

    def _view(self, name: str) -> MetricView:
        value = self.server.moment
        return MetricView(
            name=name, type="gauge", help="", labels={}, value=value, created_at="", updated_at=""
        )

    def _emit(self, event: Any, data: Mapping[str, Any]) -> None:
        self.moments.append(self.server.moment)
        item: BackendItem = Happened(event)
        if self.plan.of_cluster:
            if not self.epoch:
                self._reset_log()
            self.logged += 1
            item = self._logged(self.logged, event, data)
        self.subscribers.emit(item)

    def _logged(self, seq: int, event: Any, data: Mapping[str, Any]) -> LoggedEvent:
        names: Any = {
            StateChanged: "state_change",
            PeerChanged: "peer_change",
            MetricsDefined: "custom_metrics",
        }
        name = names[type(event)]
        payload = json.dumps({"type": name, "timestamp": "", "seq": seq, "data": data}).encode()
        return LoggedEvent(seq=seq, at=now().wall, type=name, payload=payload)

    async def do_set(self, who: int, how: int) -> None:
        name = METRICS[who % len(METRICS)]
        if name in self.server.metrics:
            self.server.moment += 1
            view = self._view(name)
            self.server.metrics[name], self.status.metrics[name] = self.server.moment, view
            self.subscribers.emit(MetricValuesChanged(metrics={name: view}))
        if how % 2:
            await trio.sleep(0.2)

    async def do_tick(self, who: int, how: int) -> None:
        self.server.moment += 1
        tick, kind = list(TICKS.items())[how % 3]
        self.server.ticks[kind] = self.server.moment
        await self.inbox.send(tick)

    async def do_join(self, who: int, how: int) -> None:
        if len(self.followers) >= 8:
            return
        rng = random.Random(how)
        wanted = EVERYTHING if self.plan.alike else rng.choice(SUBSCRIPTIONS)
        transport: FakeSocket | FakeStream = FakeStream()
        if self.plan.alike or rng.random() < 0.75:
            transport = FakeSocket(self.descriptors, encrypted=not self.plan.alike and rng.random() < 0.4)
        ttl = rng.choice((1e6, 1e6, 1e6, rng.uniform(1, 30)))
        client = HubClient(
            serial=len(self.everyone),
            id=f"c{len(self.everyone)}",
            identity=self.access.issue("admin", now().wall, ttl).identity,
            address="",
            since=0.0,
            transport=transport,
            send_buffer=rng.choice((2, 3, 4, 5, 6, 8, 64)),
            subscription=Subscription.parse(wanted),
            stream_kind="sse" if isinstance(transport, FakeStream) else "websocket",
        )
        follower = Follower(client, transport)
        client.reader = follower.reader
        if isinstance(transport, FakeStream):
            self.nursery.start_soon(transport.run, client)
            await wait_all_tasks_blocked()
        history = self.hub.log.history
        cursor = rng.choice(
            (None, None, Cursor(), Cursor(history.epoch, rng.randint(0, history.seq + 1)), Cursor("other", 1))
        )
        excerpt = await self.hub.log.missed(cursor, client.subscription) if rng.random() < 0.7 else None
        if rng.random() < 0.2:
            transport.set_room(rng.choice((0, 30)))
        self.followers.append(follower)
        self.everyone.append(follower)
        self.hub.publisher.at_boundary(partial(self._joins, follower, filter_of(wanted), cursor))
        if cursor is not None or client.waker is not None or not self.hub.sessions.join_now(client, b""):
            self.hub.sessions.join(client, cursor, excerpt)
        if isinstance(transport, FakeSocket) and rng.random() < 0.3:
            # Its pings are answered also while it waits for the boundary at which it joins.
            for _ in range(rng.choice((1, 3))):
                self.hub.connections.pong(client, b"early")

    def _joins(self, follower: Follower, wanted: Filter, cursor: Cursor | None) -> None:
        history = self.hub.log.history
        follower.model = ClientModel(
            self.server,
            wanted,
            history.epoch,
            history.seq,
            resumes=cursor is not None,
            after=-1 if cursor is None or cursor.after is None else cursor.after,
        )

    async def do_leave(self, who: int, how: int) -> None:
        """Another client may have the descriptor right after."""
        if how % 2:
            await self._in_a_broadcast(who, how)
        if (follower := self._one(who)) is not None:
            self._leave(follower)
            await self.do_join(who, how)

    def _leave(self, follower: Follower) -> None:
        self.hub.sessions.leave(follower.client)
        follower.transport.close()
        follower.left = True
        self.followers.remove(follower)

    async def do_room(self, who: int, how: int) -> None:
        if (follower := self._one(who)) is not None:
            follower.transport.set_room((0, 0, FOREVER, FOREVER, how % 500)[how % 5])

    async def do_break(self, who: int, how: int) -> None:
        if (follower := self._one(who)) is not None and isinstance(follower.transport, FakeSocket):
            follower.transport.broken = True

    async def do_ask(self, who: int, how: int) -> None:
        follower = self._one(who)
        if follower is None or isinstance(follower.transport, FakeStream):
            return
        if how % 2 == 0:
            await self._in_a_broadcast(who, how)
        if follower.left or follower.client.close_reason is not None:
            return
        follower.notice_hold(self.hub.log.history)
        self.asked += 1
        number = self.asked
        token = self.access.issue("admin", now().wall, (1e6, 5)[how % 7 == 0]).token
        wanted = SUBSCRIPTIONS[how // 5 % len(SUBSCRIPTIONS)]
        kind, command = (
            ("status", client_commands.AskStatus(number)),
            ("subscribed", client_commands.Subscribe(number, Subscription.parse(wanted))),
            ("pong", client_commands.Ping(number, UNSET)),
            ("authenticated", client_commands.Authenticate(number, token)),
            ("error", client_commands.BadCommand("no", "bad_json", client_id=number)),
        )[how % 5]
        subscription = filter_of(wanted) if kind == "subscribed" else None
        self.hub.publisher.at_boundary(partial(self._asks, follower, number, kind, subscription))
        self.hub.sessions.execute(follower.client, command)

    async def _in_a_broadcast(self, who: int, how: int) -> None:
        """Go on while some clients have an event that others have not, if that is possible."""
        self._change(who, how)
        for _ in range(30):
            await trio.lowlevel.checkpoint()
            if self.hub.publisher.publishing:
                return

    def _asks(self, follower: Follower, number: int, kind: str, subscription: Filter | None) -> None:
        history, client = self.hub.log.history, follower.client
        if kind == "authenticated":
            follower.held = False  # it may be held anew before anything is checked
        if follower.model is not None and not follower.left:
            moment = self.server.moment
            question = Question(kind, history.epoch, history.seq, subscription, client.held, moment)
            follower.model.ask(number, question)

    async def do_wait(self, who: int, how: int) -> None:
        await trio.sleep((0.02, 0.2, 3.0, 12.0)[how % 4])

    async def do_disk(self, who: int, how: int) -> None:
        self.disk.full = bool(how % 2)

    async def do_reset(self, who: int, how: int) -> None:
        """The cluster's log is another one, or has lost events."""
        if not self.plan.of_cluster:
            return
        if how % 2 or not self.epoch:
            self._reset_log(how // 2 % 4)
            return
        first, lost = self.logged + 1, 1 + how // 2 % 3
        self.server.moment += 1
        self.server.leader = f"unseen-{how % 5}"
        self.logged += lost
        self.subscribers.emit(LogReset(epoch=self.epoch, seq=self.logged, lost=(first, self.logged)))

    def _reset_log(self, kept: int = 0) -> None:
        self.resets += 1
        self.epoch, self.logged = f"e{self.resets}", kept
        healthy = PeerChanged(event_type="healthy", peer_id="p", peer_address="")
        events = [
            self._logged(seq, healthy, {"event_type": "healthy", "peer_id": "p"})
            for seq in range(1, kept + 1)
        ]
        self.moments += [self.server.moment] * kept
        self.subscribers.emit(LogReset(epoch=self.epoch, seq=kept, kept=tuple(events)))

    # -- what must hold when nothing happens any more ------------------------------------------------------------

    async def do_quiet(self, who: int, how: int) -> None:
        self.disk.full = False
        await trio.sleep(2)
        for follower in list(self.followers):
            if isinstance(follower.transport, FakeStream) or follower.client.close_reason is not None:
                continue
            follower.notice_hold(self.hub.log.history)
            self.asked += 1
            token = self.access.issue("admin", now().wall, 1e6).token
            command = client_commands.Authenticate(self.asked, token)
            self.hub.publisher.at_boundary(partial(self._asks, follower, self.asked, "authenticated", None))
            self.hub.sessions.execute(follower.client, command)
        for number in range(2 * len(TICKS)):  # of those that wait the newest must come
            await self.do_tick(who, number)
            await wait_all_tasks_blocked()
        for follower in self.followers:
            follower.transport.set_room(FOREVER)
        await trio.sleep(QUIET_SECONDS)
        await wait_all_tasks_blocked()
        self.check()
        for follower in self.followers:
            self._check_quiet(follower)
        self._check_counted()
        counted = sum(self.hub.connections.counters.dropped.values())
        if (dropped := sum(follower.client.dropped for follower in self.everyone)) != counted:
            raise Violation(f"{counted} counted as dropped, not {dropped}")

    def _check_counted(self) -> None:
        """What went out is what came. Of clients that have left some may have been on its way."""
        counters = self.hub.connections.counters
        came = Counter(m["type"] for follower in self.everyone for m in follower.transport.messages)
        size = sum(follower.transport.message_bytes for follower in self.everyone)
        nobody_left = len(self.followers) == len(self.everyone)
        if came - counters.messages or (nobody_left and counters.messages - came):
            raise Violation(f"{dict(counters.messages)} counted as sent, not {dict(came)}")
        if size > counters.bytes or (nobody_left and size != counters.bytes):
            raise Violation(f"{counters.bytes} bytes counted as sent, not {size}")

    def _check_quiet(self, follower: Follower) -> None:
        client, model = follower.client, follower.model
        assert model is not None
        if client.behind or client.waiting or client.is_dropping:
            raise Violation(f"{client.id} has {client.waiting} messages waiting")
        model.check_quiet()
        if client.sent != follower.transport.frames:
            raise Violation(f"{client.id} sent {client.sent}, not {follower.transport.frames}")
        lost = model.named + model.of_earlier_epochs
        if model.exact and client.view().dropped != lost:
            raise Violation(f"{client.id} dropped {client.dropped}, not {lost}")


@asynccontextmanager
async def world(plan: Plan) -> AsyncIterator[World]:
    descriptors = Descriptors()
    with (
        patch.object(time_slice, "TURN_SECONDS", 0.0),
        patch.object(event_log, "READ_AT_ONCE", 1),
        patch.object(fanout, "CHUNK", 1),
        patch.object(direct_writes, "os", descriptors),
        patch.object(hub_client, "BATCH_BYTES", plan.batch_bytes),
        patch.object(delivery, "BATCH_BYTES", plan.batch_bytes),
        patch.object(fanout, "BATCH_BYTES", plan.batch_bytes),
        patch.object(write_pump, "BATCH_BYTES", plan.batch_bytes),
    ):
        async with trio.open_nursery() as nursery:
            made = World(plan, nursery, descriptors)
            with patch.object(delivery, "subscribe", made.subscribe):
                await made.start()
                yield made
            nursery.cancel_scope.cancel()


async def _run(plan: Plan) -> None:
    async with world(plan) as one:
        for action in plan.actions:
            await one.do(action)
        await one.do_quiet(0, 0)


def broken_rule(plan: Plan) -> Exception | None:
    """What goes wrong in this plan, if anything does. The same every time."""
    vars(trio._core._run)["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    trio._core._run._r.seed(0)
    try:
        trio.run(_run, plan, clock=MockClock(autojump_threshold=0))
    except Exception as caught:
        error: BaseException = caught
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, Exception)
        return error
    return None


def shrunk(plan: Plan) -> Plan:
    """The same plan without actions that a failure does not need."""
    size = len(plan.actions) // 2
    while size:
        start = 0
        while start < len(plan.actions):
            fewer = replace(plan, actions=plan.actions[:start] + plan.actions[start + size :])
            if broken_rule(fewer) is not None:
                plan = fewer
            else:
                start += size
        size //= 2
    return plan


def check(seeds: Iterable[int]) -> int:
    """Run these seeds; returns how many. The first that breaks a rule is shrunk and raised as AssertionError."""
    number = 0
    for number, seed in enumerate(seeds, 1):  # noqa: B007
        if (error := broken_rule(plan_of(seed))) is not None:
            plan = shrunk(plan_of(seed))
            raise AssertionError(report(seed, plan, broken_rule(plan) or error))
    return number


def first_broken(seeds: Iterable[int]) -> None:
    """Print the first of these seeds that breaks a rule, with the rule."""
    for seed in seeds:
        if (error := broken_rule(plan_of(seed))) is not None:
            print(f"seed {seed}: {type(error).__name__}: {error}")
            return


def report(seed: int, plan: Plan, error: Exception) -> str:
    actions: Sequence[str] = [f"  {action}" for action in plan.actions]
    kind = "cluster's" if plan.of_cluster else "daemon's own"
    return "\n".join([f"seed {seed}, the {kind} log: {type(error).__name__}: {error}", *actions])


if __name__ == "__main__":
    first, number = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(f"{check(range(first, first + number))} seeds, no rule broken")
