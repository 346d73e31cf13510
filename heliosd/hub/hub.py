"""The hub: numbered events and values come in, and every client gets what it asked for, in one order.

1. One loop takes everything (`inbox.py`): events and values from the numbering stage, ticks from the ticker.
2. `publisher.py` gives each message to the clients that want it; `sessions.py` lets clients join, and answers them.
3. A status says with `as_of_seq` which events it contains. So clients join, and are answered, between two messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import trio

from heliosd.auth.access import Access
from heliosd.protocol.events import MetricValuesChanged, StateComplete, StatusChanged
from heliosd.protocol.message import OutgoingMessage, defined_metrics

from .connections import Connections
from .direct_writes import DirectWrites
from .event_log import EventLog
from .fanout import FanoutEngine
from .inbox import EventsLost, HubItem, NewEpoch, Tick, batch_at_hand, next_batch, until
from .publisher import Publisher
from .sessions import ClientSessions
from .status_messages import StatusMessages
from .token_expiry import TokenExpiry
from .value_throttle import ChangedMetrics


class Hub:
    """Sends all clients of one daemon what happens."""

    def __init__(
        self,
        *,
        connections: Connections,
        log: EventLog,
        access: Access,
        status_messages: StatusMessages,
        engine: FanoutEngine | None = None,
    ) -> None:
        """Without an engine it writes by `DirectWrites`."""
        self.connections = connections
        self.log = log
        self.engine: FanoutEngine = DirectWrites() if engine is None else engine
        self.publisher = Publisher(connections, log, status_messages, self.engine)
        self.token_expiry = TokenExpiry(access, connections)
        self.sessions = ClientSessions(connections, log, self.publisher, status_messages, self.token_expiry)
        connections.settings.on_change(self.token_expiry.recheck_all)
        self.turns = 0
        """Turns of the loop so far: the watchdog looks whether it still turns."""
        self._status_messages = status_messages
        self._changed_metrics = ChangedMetrics()
        self._inbox: trio.MemoryReceiveChannel[HubItem] | None = None
        self._waiting = trio.CancelScope()
        self.publisher.throttle.on_sooner = self._wake_in_time

    async def run(
        self,
        inbox: trio.MemoryReceiveChannel[HubItem],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Send all clients what comes out of `inbox`, until it is closed."""
        self._inbox = inbox
        task_status.started()
        while True:
            batch: list[HubItem] = []
            try:
                if self.publisher.publishing:
                    batch = batch_at_hand(inbox)
                else:
                    due = min(self._changed_metrics.due, self.publisher.throttle.due)
                    with trio.move_on_at(due) as self._waiting:
                        batch = await next_batch(inbox)
            except trio.EndOfChannel:
                return
            self.turns += 1
            await self._process(batch)
            await self._send_due_values()
            if self.publisher.publishing:
                await self.publisher.go_on()

    def _wake_in_time(self) -> None:
        self._waiting.deadline = min(self._waiting.deadline, self.publisher.throttle.due)

    async def caught_up(self) -> None:
        """Return once the loop has sent all that has come."""
        inbox = self._inbox
        await until(lambda: inbox is not None and inbox.statistics().tasks_waiting_receive > 0)

    async def _process(self, batch: Sequence[HubItem]) -> None:
        outgoing: list[OutgoingMessage] = []
        moved = False
        for item in batch:
            match item:
                case OutgoingMessage():
                    # Values of a metric that is registered anew or deleted are not sent after that.
                    self._changed_metrics.forget(defined_metrics(item))
                    outgoing.append(item)
                case MetricValuesChanged():
                    interval = self.connections.settings.current.websocket.metrics_interval
                    self._changed_metrics.add(item.metrics, trio.current_time() + interval)
                case StatusChanged():
                    moved = True
                case StateComplete():
                    await self._publish(outgoing)
                    outgoing = []
                    await self.publisher.announce_state()
                case NewEpoch():
                    await self._publish(outgoing)
                    outgoing = []
                    self.log.begin(item.epoch, item.seq, item.kept)
                    await self.publisher.announce_epoch()
                case EventsLost():
                    await self._publish(outgoing)
                    outgoing = []
                    self.log.skip(item.last)
                    await self.publisher.announce_lost(item.first, item.last)
                case Tick.STATUS:
                    outgoing.append(self._status_messages.status_update())
                case Tick.LATENCY:
                    outgoing.append(self._status_messages.latency())
                case Tick.UPTIME:
                    outgoing.append(self._status_messages.uptime())
                case Tick.WATCHDOG:
                    pass
                case _:
                    assert_never(item)
        await self._publish(outgoing, moved=moved)

    async def _publish(self, outgoing: list[OutgoingMessage], *, moved: bool = False) -> None:
        """Send these, and the new state behind the events among them, or where it has `moved` without one."""
        types = {message.type for message in outgoing}
        if moved or not types.isdisjoint(("state_change", "peer_change")):
            outgoing.append(self._status_messages.status_update())
        if "state_change" in types:
            outgoing.append(self._status_messages.uptime())
        await self.publisher.publish(outgoing)

    async def _send_due_values(self) -> None:
        if trio.current_time() >= self._changed_metrics.due:
            values = self._status_messages.metric_values(self._changed_metrics.take())
            await self.publisher.publish([] if values is None else [values])
        await self.publisher.release_values()
