"""The numbering stage of a daemon that sends the event log of a whole cluster.

The numbers come from the cluster, which keeps the events as well, so a client that was cut from one daemon
resumes on any other. Nothing is stored on this daemon's disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import assert_never

import trio

from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.cluster.subscribers import ItemQueue
from heliosd.protocol import server_messages
from heliosd.protocol.events import (
    BackendItem,
    Happened,
    LogReset,
    MetricValuesChanged,
    Provisional,
    StateComplete,
    StatusChanged,
)
from heliosd.protocol.message import OutgoingMessage, replayed
from heliosd.store.changes import LoggedEvent

from .event_log import EventLog
from .inbox import EventsLost, HubItem, NewEpoch, NumberedItem, next_batch, send_all, until

PATIENCE_SECONDS = 3.0
"""How long a client that comes back waits for events that another daemon has sent already, and this one not."""


class ClusterNumbering:
    """Maps the cluster's log to what the hub takes. Until that log has been read `log` is not readable, and its
    epoch is unknown to every client: no client that comes back then can be promised that nothing is missing."""

    def __init__(self, *, max_events: int, max_age: float, now: Callable[[], Instant]) -> None:
        self.log = EventLog(max_events=max_events, max_age=max_age, patience_seconds=PATIENCE_SECONDS)
        self._now = now
        self._epoch = ""
        self._seq = 0
        self._events: ItemQueue | None = None
        self._busy = False

    async def run(
        self,
        backend: Backend,
        hub: trio.MemorySendChannel[HubItem],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Carry the backend's events to the hub, until cancelled. While the hub is busy this waits, and so does the
        backend."""
        async with backend.events() as events, hub:
            self._events = events
            task_status.started()
            while True:
                batch = await next_batch(events)
                self._busy = True
                await send_all(hub, [numbered for item in batch for numbered in self._numbered(item)])
                self._busy = False

    async def caught_up(self) -> None:
        """Return once all that the backend has sent so far is with the hub."""
        events = self._events
        await until(lambda: not self._busy and events is not None and not events.waiting)

    def _numbered(self, item: BackendItem) -> Iterator[NumberedItem]:
        match item:
            case LoggedEvent():
                self._seq = item.seq
                yield _message(item)
            case Provisional() | Happened():
                # What did not come through the cluster's log has no number.
                yield server_messages.of_provisional(item.event, self._now().wall)
            case MetricValuesChanged() | StatusChanged() | StateComplete():
                yield item
            case LogReset():
                yield from self._reset(item)
            case _:
                assert_never(item)

    def _reset(self, to: LogReset) -> Iterator[NumberedItem]:
        """In the same epoch some events were lost: what comes after them is sent live. In another epoch clients
        start from the status."""
        if to.epoch != self._epoch:
            self._epoch, self._seq = to.epoch, to.seq
            yield NewEpoch(to.epoch, to.seq, tuple(_message(event) for event in to.kept))
            return
        if to.lost is not None:
            yield EventsLost(*to.lost)
            self._seq = to.lost[1]
        for event in to.kept:
            if event.seq > self._seq:
                self._seq = event.seq
                yield _message(event)


def _message(event: LoggedEvent) -> OutgoingMessage:
    """The event as every daemon of the cluster sends it: the same bytes."""
    return replayed(seq=event.seq, at=event.at, name=event.type, payload=event.payload)
