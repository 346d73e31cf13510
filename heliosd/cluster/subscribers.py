"""How events get from a backend to its readers: through a bounded queue for each reader."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from heliosd.protocol.events import BackendItem, MetricValuesChanged, StatusChanged


class ItemQueue(trio.abc.ReceiveChannel[BackendItem]):
    """The items that one reader has not taken yet, in order. Nothing is dropped.

    `put` never waits, so that a change and its event are one step for other tasks. The task that puts waits for
    `room` before its next step: so at most `size` items and those of one step are held. A value is merged into the
    item before it if that is a value too, as it replaces it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[BackendItem] = deque()
        self._closed = False
        self._for_items = trio.lowlevel.ParkingLot()
        self._for_room = trio.lowlevel.ParkingLot()

    @property
    def waiting(self) -> int:
        """Items held now."""
        return len(self._items)

    @property
    def has_room(self) -> bool:
        return self._closed or len(self._items) <= self._size

    def put(self, item: BackendItem) -> None:
        """Append an item. A closed queue takes none."""
        if self._closed:
            return
        last = self._items[-1] if self._items else None
        if isinstance(item, StatusChanged) and isinstance(last, StatusChanged):
            return
        if isinstance(item, MetricValuesChanged) and isinstance(last, MetricValuesChanged):
            self._items[-1] = MetricValuesChanged(metrics={**last.metrics, **item.metrics})
            return
        self._items.append(item)
        self._for_items.unpark_all()

    async def room(self) -> None:
        """Return once at most `size` items wait, or the reader has left."""
        while not self.has_room:
            await self._for_room.park()

    async def receive(self) -> BackendItem:
        if self._items or self._closed:
            await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.receive_nowait()
            except trio.WouldBlock:
                await self._for_items.park()

    def receive_nowait(self) -> BackendItem:
        """The next item. Raises `trio.WouldBlock` if none waits."""
        if self._closed:
            raise trio.ClosedResourceError
        if not self._items:
            raise trio.WouldBlock
        item = self._items.popleft()
        if self.has_room:
            self._for_room.unpark_all()
        return item

    def close(self) -> None:
        """The reader leaves; nothing waits for it any more."""
        self._closed = True
        self._items.clear()
        self._for_items.unpark_all()
        self._for_room.unpark_all()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


class Subscribers:
    """The readers of one backend, `Backend.events`; each has a queue of `buffer` items."""

    def __init__(self, buffer: int) -> None:
        self._buffer = buffer
        self._queues: list[ItemQueue] = []

    @asynccontextmanager
    async def listener(self) -> AsyncIterator[ItemQueue]:
        """All items emitted from now on, in order."""
        queue = ItemQueue(self._buffer)
        self._queues.append(queue)
        try:
            yield queue
        finally:
            self._queues.remove(queue)
            queue.close()

    def emit(self, item: BackendItem) -> None:
        """Give an item to every reader. The task that emits waits for `room` before its next step."""
        for queue in self._queues:
            queue.put(item)

    @property
    def have_room(self) -> bool:
        return all(queue.has_room for queue in self._queues)

    async def room(self) -> None:
        """Return once every reader's queue has room."""
        await trio.lowlevel.checkpoint()
        while not self.have_room:
            for queue in list(self._queues):
                await queue.room()
