"""What the hub's inbox carries, and how that and the queue of a backend are read, some items at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum, auto
from typing import Protocol, TypeVar

import trio
from msgspec import Struct

from heliosd.protocol.events import MetricValuesChanged, StateComplete, StatusChanged
from heliosd.protocol.message import OutgoingMessage

BATCH = 50
"""Items taken from a channel at once: their events share a transaction, and one `status_update` follows them."""

CAUGHT_UP_SECONDS = 0.005
"""Between two checks whether everything has been taken."""


class Tick(Enum):
    """It is time to send a value."""

    STATUS = auto()
    LATENCY = auto()
    UPTIME = auto()
    WATCHDOG = auto()
    """Nothing is sent: it only makes the loop turn."""


class NewEpoch(Struct, frozen=True):
    """A new numbering begins: the next event bears `seq + 1`; `kept`, which ends with `seq`, can be replayed."""

    epoch: str
    seq: int = 0
    kept: tuple[OutgoingMessage, ...] = ()


class EventsLost(Struct, frozen=True):
    """The events from one number to another will never be sent. The next event bears `last + 1`."""

    first: int
    last: int


NumberedItem = OutgoingMessage | MetricValuesChanged | StatusChanged | StateComplete | NewEpoch | EventsLost
"""A message is an event: with its `seq`, or a provisional one without."""

Item_co = TypeVar("Item_co", covariant=True)
HubItem = NumberedItem | Tick


class Source(Protocol[Item_co]):
    """A channel, or a backend's queue of items."""

    async def receive(self) -> Item_co: ...

    def receive_nowait(self) -> Item_co: ...


async def next_batch(source: Source[Item_co]) -> list[Item_co]:
    """Wait for an item; return it with those that follow at once, `BATCH` at most. Raises `trio.EndOfChannel`."""
    batch = [await source.receive()]
    with suppress(trio.EndOfChannel):
        batch += batch_at_hand(source, BATCH - 1)
    return batch


def batch_at_hand(source: Source[Item_co], at_most: int = BATCH) -> list[Item_co]:
    """The items that are there now. Raises `trio.EndOfChannel` if there is none and none will come."""
    batch: list[Item_co] = []
    while len(batch) < at_most:
        try:
            batch.append(source.receive_nowait())
        except trio.WouldBlock:
            break
        except trio.EndOfChannel:
            if not batch:
                raise
            break
    return batch


async def send_all(hub: trio.MemorySendChannel[HubItem], items: Iterable[NumberedItem]) -> None:
    """Put these into the hub's inbox. While it is full this waits."""
    for item in items:
        try:
            hub.send_nowait(item)
        except trio.WouldBlock:
            await hub.send(item)


async def until(condition: Callable[[], bool]) -> None:
    """Return once this holds, by asking again and again."""
    while not condition():  # noqa: ASYNC110 (neither channels nor queues report that they are empty)
        await trio.sleep(CAUGHT_UP_SECONDS)
