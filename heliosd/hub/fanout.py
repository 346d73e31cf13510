"""The fast path: the same bytes to many clients, straight to their sockets.

What costs most in a fan-out is waking a task for each delivery, so none is woken: a ready client gets the shared
bytes by one non-blocking write, and an engine does these for many clients at once: `direct_writes.py` in the loop
itself, `flights.py` in other threads. A pump only writes what did not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from heliosd.protocol.message import OutgoingMessage

from . import delivery
from .client import BATCH_BYTES, HubClient
from .recipients import Recipients
from .time_slice import TimeSlice

CHUNK = 32
"""Clients served between two checks whether the time slice is over. With 16 a delivery costs 7 % more."""

GONE = -1
"""In place of the number of bytes that a socket took."""

Settle = Callable[[HubClient], None]
"""Sees to what a write left to do."""


class FanoutEngine(Protocol):
    """How bytes come to the sockets of many clients."""

    @property
    def name(self) -> str:
        """What does it now, as `websocket.fanout` names it."""

    @property
    def threads(self) -> int:
        """How many threads do it beside the loop's own."""

    async def write(
        self, recipients: Recipients, places: int, frames: bytes, settle: Settle, time_slice: TimeSlice
    ) -> None:
        """Give `frames` to the ready ones in the first so many places, and settle each for which something is left
        to do. Waits for no socket. Where it does wait, clients may leave, end, and be sent answers."""


def groups(outgoing: Sequence[OutgoingMessage]) -> Iterator[list[OutgoingMessage]]:
    """The messages in runs of at most `BATCH_BYTES`, so that one write is no more than a pump would
    take at once."""
    group: list[OutgoingMessage] = []
    size = 0
    for message in outgoing:
        if group and size + len(message.payload) > BATCH_BYTES:
            yield group
            group, size = [], 0
        group.append(message)
        size += len(message.payload)
    if group:
        yield group


async def broadcast(
    engine: FanoutEngine,
    recipients: Recipients,
    messages: Sequence[OutgoingMessage],
    frames: bytes,
    settle: Settle,
    time_slice: TimeSlice,
) -> None:
    """Give `frames`, which are `messages` joined in the form that these clients agreed to, to all of them.

    Clients that join meanwhile are not among the receivers.
    """
    places, not_ready = recipients.begin(len(messages))
    await engine.write(recipients, places, frames, settle, time_slice)
    not_ready += recipients.finish()
    for start in range(0, len(not_ready), CHUNK):
        # To those whose sockets are not simply written to: a queue that has not emptied, an expired token.
        for client in not_ready[start : start + CHUNK]:
            delivery.deliver_all(client, messages, frames)
            settle(client)
        if time_slice.over:
            await time_slice.pause()


def keep_rest(client: HubClient, payload: bytes, taken: int) -> None:
    """A client's socket did not take all of it: `taken` bytes, or it is GONE. A pump writes the rest."""
    if taken == GONE:
        client.gone = True
        return
    if client.transport.encrypted:
        client.transport.keep(memoryview(payload)[taken:])
    else:
        client.unsent = memoryview(payload)[taken:]
    client.fall_behind()
