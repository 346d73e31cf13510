"""The hub: who is connected, and who gets what.

One loop takes everything in one order (events and values from the backend, beats from the broadcaster),
numbers the events, encodes each message once and fans it out. Everything else here is synchronous: it happens
between two steps of that loop, as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from math import inf
from typing import assert_never

import trio

from .. import messages
from ..clock import Instant
from ..cluster.custom_metrics import MetricView
from ..commands import AskStatus, BadCommand, Command, Ping, Subscribe
from ..config import Settings
from ..events import Event, MetricsDefined, MetricsMoved, PeerChanged, StateChanged, Value
from ..history import History
from ..messages import Kind, Message
from ..websocket.frames import ping_frame, pong_frame, text_frame
from . import fanout
from .client import Client, Delivery
from .counters import HubCounters
from .goodbye import DISCONNECTED, REVOKED, TOO_SLOW, Goodbye
from .pumps import write_pump
from .reports import Reports
from .roster import ClientView

BATCH = 50
"""Items taken from the inbox at once; what they change is told in one status_update."""

PING_SLOTS = 64
"""Clients are pinged in so many groups over a ping interval, never all in one tick."""


class Beat(Enum):
    """It is time to tell a value."""

    STATUS = auto()
    LATENCY = auto()
    UPTIME = auto()
    WATCHDOG = auto()
    """Nothing is told: it only makes the loop turn."""


Item = Event | Value | Beat


@dataclass(slots=True)
class _Gathered:
    """Metric values that changed and are not told yet."""

    metrics: dict[str, MetricView]
    due: float = inf


class Hub:
    """Serves all clients of one daemon. Implements `web.parts.Roster`."""

    def __init__(
        self,
        *,
        settings: Settings,
        history: History,
        now: Callable[[], Instant],
        pumps: trio.Nursery,
    ) -> None:
        self.counters = HubCounters()
        self.turns = 0
        """Turns of the loop so far: the watchdog looks whether it still turns."""
        self._settings = settings
        self._history = history
        self._now = now
        self._pumps = pumps
        self._reports: Reports | None = None
        self._clients: dict[str, Client] = {}
        self._gathered = _Gathered({})
        self._fanning_out = False
        self._between: list[Callable[[], None]] = []
        self._empty = trio.Event()
        self._empty.set()

    # -- the loop ----------------------------------------------------------------------------------------------

    async def run(
        self,
        inbox: trio.MemoryReceiveChannel[Item],
        reports: Reports,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Tell everybody what comes out of `inbox`, until it is closed. Clients may join once this has started."""
        self._reports = reports
        task_status.started()
        while True:
            batch: list[Item] = []
            with trio.move_on_at(self._gathered.due):
                try:
                    batch.append(await inbox.receive())
                except trio.EndOfChannel:
                    return
            while batch and len(batch) < BATCH:
                try:
                    batch.append(inbox.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            self.turns += 1
            await self._tell(batch, reports)

    async def _tell(self, batch: Sequence[Item], reports: Reports) -> None:
        state_changed = peers_changed = False
        for item in batch:
            match item:
                case MetricsMoved():
                    self._gather(item.metrics)
                case StateChanged() | PeerChanged() | MetricsDefined():
                    state_changed |= isinstance(item, StateChanged)
                    peers_changed |= isinstance(item, PeerChanged)
                    if isinstance(item, MetricsDefined):
                        for name in item.metrics:
                            self._gathered.metrics.pop(name, None)
                    await self._publish_event(item)
                case Beat.STATUS:
                    await self.publish(reports.status_update())
                case Beat.LATENCY:
                    await self.publish(reports.latency())
                case Beat.UPTIME:
                    await self.publish(reports.uptime())
                case Beat.WATCHDOG:
                    pass
                case _:
                    await self._publish_event(item)
        if state_changed or peers_changed:
            await self.publish(reports.status_update())
        if state_changed:
            await self.publish(reports.uptime())
        if trio.current_time() >= self._gathered.due:
            gathered, self._gathered = self._gathered, _Gathered({})
            if gathered.metrics:
                await self.publish(messages.of_metric_values(gathered.metrics, self._now().wall))

    def _gather(self, metrics: Mapping[str, MetricView]) -> None:
        self._gathered.metrics.update(metrics)
        if self._gathered.due == inf:
            self._gathered.due = trio.current_time() + self._settings.current.websocket.metrics_interval

    async def _publish_event(self, event: Event) -> None:
        await self.publish(messages.of_event(self._history.append(event, self._now().wall)))

    async def publish(self, message: Message) -> None:
        """Give one message to every client that wants it, in chunks with a checkpoint after each.

        No client is waited for. Clients that join meanwhile are not among the receivers: they join at the next
        boundary between messages, with a status that has this one in it.
        """
        started = trio.current_time()
        frame = text_frame(message.payload)
        replaces = message.type if message.kind is Kind.VALUE else None
        receivers = [
            client
            for client in self._clients.values()
            if not message.topic or client.subscription.wants(message.topic)
        ]
        self._fanning_out = True
        try:
            for start in range(0, len(receivers), fanout.CHUNK):
                chunk = receivers[start : start + fanout.CHUNK]
                self._settle(fanout.write(chunk, frame, replaces))
                await trio.lowlevel.checkpoint()
        finally:
            self._fanning_out = False
            for action in self._between:
                action()
            self._between.clear()
        self.counters.messages[message.type] += len(receivers)
        self.counters.bytes += len(frame) * len(receivers)
        self.counters.broadcast.observe(trio.current_time() - started)

    # -- clients -----------------------------------------------------------------------------------------------

    def join(self, client: Client) -> None:
        """Register `client` and give it `status` first. Takes effect between two messages, never inside one."""
        if self._fanning_out:
            self._between.append(partial(self.join, client))
            return
        if client.goodbye is not None:
            return
        assert self._reports is not None, "the hub's loop has been started"
        self._clients[client.id] = client
        if self._empty.is_set():
            self._empty = trio.Event()
        self.tell(client, self._reports.status(self._history.seq))

    def leave(self, client: Client) -> None:
        """Forget `client`. Its connection's task calls this first of all when it ends, before it closes the
        socket."""
        client.goodbye = client.goodbye or Goodbye(1006, "connection lost")
        self._clients.pop(client.id, None)
        if not self._clients:
            self._empty.set()

    def obey(self, client: Client, command: Command | BadCommand) -> None:
        """Do what a client's message says, and answer it."""
        at = self._now().wall
        match command:
            case Ping():
                self.tell(client, messages.of_pong(at, command.data, command.id))
            case AskStatus():
                self._tell_status(client, command)
            case Subscribe():
                client.subscription = command.subscription
                self.tell(client, messages.of_subscription(client.subscription, at, command.id))
            case BadCommand():
                answer = messages.of_error(
                    str(command), command.code, at, field=command.field, client_id=command.client_id
                )
                self.tell(client, answer)
            case _:
                assert_never(command)

    def _tell_status(self, client: Client, command: AskStatus) -> None:
        # Its `as_of_seq` must not run ahead of the events that this client has been given.
        if self._fanning_out:
            self._between.append(partial(self._tell_status, client, command))
            return
        assert self._reports is not None
        self.tell(client, self._reports.status(self._history.seq, command.id))

    def tell(self, client: Client, message: Message) -> None:
        """Give one client a message of its own."""
        frame = text_frame(message.payload)
        self.counters.messages[message.type] += 1
        self.counters.bytes += len(frame)
        self._settle([(client, client.deliver(frame))])

    def pong(self, client: Client, payload: bytes) -> None:
        """Answer a protocol ping. Of several that wait only the newest is answered (RFC 6455 section 5.5.3)."""
        self._settle([(client, client.deliver(pong_frame(payload), "pong frame"))])

    def end(self, client: Client, goodbye: Goodbye, *, flush: bool = False) -> None:
        """Close one client's connection with a close frame, behind what waits for it if `flush`."""
        self._settle([(client, client.end(goodbye, flush=flush))])

    def _settle(self, unfinished: Sequence[tuple[Client, Delivery]]) -> None:
        """See to what a write left to do."""
        for client, delivery in unfinished:
            match delivery:
                case Delivery.QUEUED:
                    self._pumps.start_soon(write_pump, client, self._settings, self.counters)
                case Delivery.REFUSED:
                    self.counters.dropped["slow"] += 1
                    client.end(TOO_SLOW, flush=False)
                case Delivery.GONE if client.goodbye is None:
                    client.scope.cancel()
                case Delivery.GONE | Delivery.WRITTEN:
                    pass
                case _:
                    assert_never(delivery)

    # -- pings, the end ----------------------------------------------------------------------------------------

    async def ping_all(self) -> None:
        """Ping every client once a `ping_interval`, in groups spread over it. Runs until cancelled."""
        frame = ping_frame()
        slot = 0
        while True:
            await trio.sleep(self._settings.current.websocket.ping_interval / PING_SLOTS)
            slot = (slot + 1) % PING_SLOTS
            for client in [c for c in self._clients.values() if c.serial % PING_SLOTS == slot]:
                self._settle([(client, client.deliver(frame, "ping frame"))])

    def end_all(self, goodbye: Goodbye) -> None:
        """Close every connection, each behind what waits for it."""
        for client in list(self._clients.values()):
            self.end(client, goodbye, flush=True)

    async def wait_empty(self) -> None:
        """Return once no client is left."""
        await self._empty.wait()

    # -- the roster, for the admin API --------------------------------------------------------------------------

    def count(self) -> int:
        return len(self._clients)

    def count_connection(self, outcome: str) -> None:
        """An upgrade request ended so (see `HubCounters.connections`)."""
        self.counters.connections[outcome] += 1

    def count_of(self, user_id: str) -> int:
        """How many connections a user has."""
        return sum(client.identity.user_id == user_id for client in self._clients.values())

    def views(self) -> list[ClientView]:
        return [client.view() for client in self._clients.values()]

    def queue_depth(self) -> int:
        """Messages that wait for all clients together."""
        return sum(len(client.mailbox) for client in self._clients.values())

    def disconnect(self, client_id: str) -> bool:
        """Close a client with 4000. False: there is none with this id."""
        client = self._clients.get(client_id)
        if client is None:
            return False
        self.end(client, DISCONNECTED)
        return True

    def token_revoked(self, jti: str) -> None:
        """Close with 4401 every connection that stands on this token."""
        for client in list(self._clients.values()):
            if client.identity.jti == jti:
                self.end(client, REVOKED)
