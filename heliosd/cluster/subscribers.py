"""Events on their way from a backend to those who listen to it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from heliosd.protocol.events import BackendItem, MetricValuesChanged, StatusChanged


class PendingItems:
    """In order, and nothing is dropped: while the listener is slow, what it has not taken waits here.

    Events pile up as fast as the cluster makes them. Values do not: as a newer one makes an older one worthless,
    those that wait behind one another become one.
    """

    def __init__(self) -> None:
        self._waiting: deque[BackendItem] = deque()
        self._filled = trio.Event()

    def put(self, item: BackendItem) -> None:
        if isinstance(item, MetricValuesChanged | StatusChanged) and self._waiting:
            last = self._waiting[-1]
            if isinstance(item, StatusChanged) and isinstance(last, StatusChanged):
                return
            if isinstance(item, MetricValuesChanged) and isinstance(last, MetricValuesChanged):
                self._waiting[-1] = MetricValuesChanged(metrics={**last.metrics, **item.metrics})
                return
        self._waiting.append(item)
        self._filled.set()

    async def relay(self, listener: trio.MemorySendChannel[BackendItem]) -> None:
        """Carry everything to the listener, for ever. A listener that left takes nothing more."""
        try:
            while True:
                await self._filled.wait()
                while self._waiting:
                    await listener.send(self._waiting.popleft())
                self._filled = trio.Event()
        except trio.BrokenResourceError:
            return


class Subscribers:
    """One for each listener: what both backends offer as `Backend.events`. `buffer`: items a channel holds."""

    def __init__(self, buffer: int) -> None:
        self._buffer = buffer
        self._open: list[PendingItems] = []

    @asynccontextmanager
    async def listener(self) -> AsyncIterator[trio.MemoryReceiveChannel[BackendItem]]:
        """All that is told from here on, in order."""
        send, receive = trio.open_memory_channel[BackendItem](self._buffer)
        outbox = PendingItems()
        self._open.append(outbox)
        try:
            async with trio.open_nursery() as nursery, receive:
                nursery.start_soon(outbox.relay, send)
                yield receive
                nursery.cancel_scope.cancel()
        finally:
            self._open.remove(outbox)

    def emit(self, item: BackendItem) -> None:
        """To everyone who listens."""
        for outbox in self._open:
            outbox.put(item)
