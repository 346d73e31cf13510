"""The hub: what is told, to whom, and in which order.

One loop takes everything in one order (events and values from the backend, beats from the broadcaster), has the
events numbered and stored, encodes each message once and fans it out. Who comes, goes and asks meanwhile is
`conversation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import assert_never

import trio

from heliosd.auth.access import Access
from heliosd.clock import Instant
from heliosd.config.model import Settings
from heliosd.protocol import server_messages
from heliosd.protocol.events import (
    Happened,
    LogReset,
    MetricsDefined,
    MetricValuesChanged,
    Provisional,
    StatusChanged,
)
from heliosd.protocol.history import Replay
from heliosd.protocol.message import Kind, OutgoingMessage, defined_metrics
from heliosd.store.changes import LoggedEvent

from . import fanout
from .client import HubClient
from .event_log import EventLog
from .inbox import HubItem, Tick
from .metric_gathering import MetricGathering
from .session import Session
from .shared_log import ClusterLog, message_of
from .status_messages import StatusMessages
from .time_slice import TimeSlice

BATCH = 50
"""Items taken from the inbox at once: their events share a transaction, and one status_update tells the rest."""

CAUGHT_UP_SECONDS = 0.005
"""Between looks whether the loop has told everything."""


class Hub(Session):
    """Tells all clients of one daemon what happens."""

    def __init__(
        self,
        *,
        settings: Settings,
        log: EventLog,
        access: Access,
        now: Callable[[], Instant],
        pumps: trio.Nursery,
    ) -> None:
        super().__init__(settings, log, access, now, pumps)
        self.turns = 0
        """Turns of the loop so far: the watchdog looks whether it still turns."""
        self._inbox: trio.MemoryReceiveChannel[HubItem] | None = None
        self._gathered = MetricGathering()

    async def run(
        self,
        inbox: trio.MemoryReceiveChannel[HubItem],
        status_messages: StatusMessages,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Tell everybody what comes out of `inbox`, until it is closed. Clients may join once this has started."""
        self._status_messages = status_messages
        self._inbox = inbox
        await self.log.open(trio.current_time())
        task_status.started()
        while True:
            batch: list[HubItem] = []
            with trio.move_on_at(min(self._gathered.due, self._throttle.due, self._retry_due())):
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
            if trio.current_time() >= self._retry_due():
                await self.log.retry(trio.current_time())
            await self._process(batch, status_messages)
            await self._send_due()

    async def caught_up(self) -> None:
        """Return once the loop has nothing left to tell."""
        assert self._inbox is not None, "the hub's loop has been started"
        while not self._inbox.statistics().tasks_waiting_receive:  # noqa: ASYNC110 (its statistics tell nobody)
            await trio.sleep(CAUGHT_UP_SECONDS)

    def _retry_due(self) -> float:
        return inf if self.log.trouble is None else self.log.retry_at

    async def _process(self, batch: Sequence[HubItem], status_messages: StatusMessages) -> None:
        happened = [item for item in batch if isinstance(item, Happened)]
        events = iter(await self._logged(happened)) if happened else iter(())
        outgoing: list[OutgoingMessage] = []
        moved = False
        for item in batch:
            match item:
                case Happened():
                    message = next(events)
                    outgoing.append(message)
                    if isinstance(item.event, MetricsDefined):
                        self._discard_stale(message, item.event.metrics)
                case MetricValuesChanged():
                    interval = self._settings.current.websocket.metrics_interval
                    self._gathered.add(item.metrics, trio.current_time() + interval)
                case LoggedEvent():
                    outgoing.append(self._without_stale(message_of(item)))
                case Provisional():
                    outgoing.append(
                        self._without_stale(server_messages.of_provisional(item.event, self._now().wall))
                    )
                case StatusChanged():
                    moved = True
                case LogReset():
                    await self._publish_all(outgoing, status_messages)
                    outgoing = self._renumbered(item)
                case Tick.STATUS:
                    outgoing.append(status_messages.status_update())
                case Tick.LATENCY:
                    outgoing.append(status_messages.latency())
                case Tick.UPTIME:
                    outgoing.append(status_messages.uptime())
                case Tick.WATCHDOG:
                    pass
                case _:
                    assert_never(item)
        await self._publish_all(outgoing, status_messages, moved=moved)

    async def _publish_all(
        self, outgoing: list[OutgoingMessage], status_messages: StatusMessages, *, moved: bool = False
    ) -> None:
        """Tell these, and how things stand after the events among them, or since they have `moved` without one."""
        types = {message.type for message in outgoing}
        if moved or not types.isdisjoint(("state_change", "peer_change")):
            outgoing.append(status_messages.status_update())
        if "state_change" in types:
            outgoing.append(status_messages.uptime())
        await self.publish(outgoing)

    async def _logged(self, happened: Sequence[Happened]) -> list[OutgoingMessage]:
        """The events numbered and, unless the store is in trouble, on disk. A new epoch is told to everyone."""
        epoch = self.log.history.epoch
        outgoing = await self.log.commit(
            [(item.event, item.applied_marker) for item in happened], self._now().wall, trio.current_time()
        )
        if self.log.history.epoch != epoch:
            self._announce_epoch()
        return outgoing

    def _renumbered(self, to: LogReset) -> list[OutgoingMessage]:
        """The cluster's log is another one, or lost some events that nobody had been told: everyone hears which.
        Returns what is to be told live after that."""
        assert isinstance(self.log, ClusterLog), "only the cluster's own log is renumbered"
        epoch = self.log.history.epoch
        coming = self.log.renumber(to)
        self._status = None
        if self.log.history.epoch != epoch:
            self._announce_epoch()
        elif to.lost is not None:
            self._announce_hole(*to.lost)
        return [self._without_stale(message_of(event)) for event in coming]

    def _announce_epoch(self) -> None:
        for client in list(self._clients.values()):
            # Numbers of two epochs must not meet in one gap, and the status replaces what waits.
            client.dropped += client.forget_what_waits()
            self.send(client, self._welcome(client, Replay(refusal="epoch_changed")))
            self.send(client, self._status_message())

    def _announce_hole(self, first: int, last: int) -> None:
        gap = server_messages.of_gap(first, last, last - first + 1, self._now().wall, "too_old")
        for client in list(self._clients.values()):
            self.send(client, gap)
            self.send(client, self._status_message())

    def _without_stale(self, message: OutgoingMessage) -> OutgoingMessage:
        names = defined_metrics(message)
        if names:
            self._discard_stale(message, names)
        return message

    def _discard_stale(self, message: OutgoingMessage, names: Iterable[str]) -> None:
        """Values that wait for a metric that is registered anew or deleted are not told after that."""
        self._gathered.forget(names)
        self._throttle.discard_stale(message)

    async def _send_due(self) -> None:
        now = trio.current_time()
        if now >= self._gathered.due:
            gathered = self._gathered.take()
            if gathered:
                await self.publish([server_messages.of_metric_values(gathered, self._now().wall)])
        if now >= self._throttle.due:
            for client, value in self._throttle.release(now):
                self.send(client, value)

    async def publish(self, outgoing: Sequence[OutgoingMessage]) -> None:
        """Give messages, in their order, to every client that wants them.

        What comes in one turn of the loop goes out in one write to each client: that is what makes a storm
        cheap. No client is waited for.
        """
        for group in fanout.groups(outgoing):
            await self._fan_out(group)

    async def _fan_out(self, outgoing: Sequence[OutgoingMessage]) -> None:
        """One write of all of `told` to each client, in turns that are short for everybody else.

        Clients that join meanwhile are not among the receivers: they join when everybody has these messages,
        with a status that has them in it.
        """
        started, time_slice = trio.current_time(), TimeSlice()
        for message in outgoing:
            if message.seq is not None:
                self.log.history.keep(message, self._now().wall)
        # Whoever comes from now on is not told these: the status that it gets must have them in it.
        self._status = None
        self._fanning_out = True
        try:
            for of, mine in self._groups.split(outgoing):
                for recipients in list(of.recipients_by_form.values()):
                    if of.subscription.min_intervals:
                        self._deliver_paced(list(recipients), mine, started)
                        continue
                    self._count(mine, len(recipients))
                    frames = b"".join([m.deflated if recipients.deflating else m.frame for m in mine])
                    for unfinished in fanout.broadcast(recipients, mine, frames):
                        if unfinished:
                            self._settle(unfinished)
                        if time_slice.over:
                            await time_slice.pause()
        finally:
            self._fanning_out = False
            between, self._between = self._between, []
            for action in between:
                action()
        self.counters.broadcast.observe(trio.current_time() - started)

    def _deliver_paced(
        self, receivers: Sequence[HubClient], mine: Sequence[OutgoingMessage], now: float
    ) -> None:
        """To clients who want some values no more often than now and then, each message by itself."""
        for client in receivers:
            for message in mine:
                pause = client.subscription.min_interval(message.topic) if message.kind is Kind.VALUE else 0.0
                if not pause or self._throttle.admit(client, message, pause, now):
                    self.send(client, message)
