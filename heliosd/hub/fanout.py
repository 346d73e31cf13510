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
"""So many clients at most are served between two checks whether the time slice is over. With 16 a delivery costs
7 % more."""

HEAD_BYTES = 10
"""The longest head of a frame from a server (RFC 6455 section 5.2)."""

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


def batches(outgoing: Sequence[OutgoingMessage]) -> Iterator[list[OutgoingMessage]]:
    """The messages in runs of at most `BATCH_BYTES` of frames, so that one write is no more than a pump would
    take at once. A longer message stands alone."""
    batch: list[OutgoingMessage] = []
    size = 0
    for message in outgoing:
        framed = len(message.payload) + HEAD_BYTES
        if batch and size + framed > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += framed
    if batch:
        yield batch


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
    step = at_a_time(frames)
    for start in range(0, len(not_ready), step):
        # To those whose sockets are not simply written to: a queue that has not emptied, an expired token.
        for client in not_ready[start : start + step]:
            delivery.deliver_all(client, messages, frames)
            settle(client)
        if time_slice.over:
            await time_slice.pause()


def at_a_time(frames: bytes) -> int:
    """Clients served between two checks whether the time slice is over: fewer where each is given much."""
    return max(1, min(CHUNK, BATCH_BYTES // len(frames)))


def encrypted_at_once(frames: bytes) -> bytes:
    """What of them is encrypted for a client before its socket has taken anything: all, or the beginning of a long
    message. TLS does not say how much of what it was given has left, so a client must take that much within
    `write_timeout`; and it is kept for each client, while the rest is one object for all."""
    return frames[:BATCH_BYTES]


def keep_plaintext(client: HubClient, frames: bytes, encrypted: bytes) -> None:
    """Of `frames` only the beginning was encrypted. A pump encrypts the rest, which is not copied."""
    if not client.gone:
        client.unsent = memoryview(frames)[len(encrypted) :]
        client.fall_behind()


def keep_rest(client: HubClient, payload: bytes, taken: int) -> None:
    """A client's socket did not take all of it: `taken` bytes, or it is GONE. A pump writes the rest."""
    if taken == GONE:
        client.lose()
        return
    if client.transport.encrypted:
        client.transport.keep(memoryview(payload)[taken:])
    else:
        client.unsent = memoryview(payload)[taken:]
    client.fall_behind()
