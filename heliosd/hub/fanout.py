"""The fast path: the same bytes to many clients, straight to their sockets.

Waking a task for each delivery is what costs in a fan-out, so none is woken: a ready client gets the shared bytes
by one non-blocking write, and the writes of a chunk of clients are one call of `map` over their descriptors. Only
what did not fit becomes a pump's work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import repeat

from heliosd.protocol.message import OutgoingMessage

from .client import BATCH_BYTES, Delivery, HubClient
from .recipients import Recipients

CHUNK = 32
"""Clients served before it is looked whether the loop should turn to somebody else (`turn.py`). With 16 a delivery
costs 7 % more."""

Unfinished = tuple[HubClient, Delivery, Sequence[OutgoingMessage]]
"""A client for whom something is left to do, and the messages that it did not get."""

_GONE = -1
"""In place of the number of bytes that a socket took."""


def groups(outgoing: Sequence[OutgoingMessage]) -> Iterator[list[OutgoingMessage]]:
    """The messages in runs of at most `BATCH_BYTES`, so that no client is owed more by one write than a pump
    would have taken at once."""
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


def broadcast(
    recipients: Recipients, messages: Sequence[OutgoingMessage], frames: bytes
) -> Iterator[list[Unfinished]]:
    """Give `frames`, which are `messages` joined in the form that this audience agreed to, to all of it.

    Yields after each chunk those for whom something is left to do; nobody is waited for. There the caller may let
    others run: clients that join meanwhile are not among the receivers.
    """
    places, not_ready = recipients.begin(len(messages))
    for start in range(0, places, CHUNK):
        yield _write(recipients, start, min(start + CHUNK, places), frames)
    not_ready += recipients.finish()
    for start in range(0, len(not_ready), CHUNK):
        yield _deliver(not_ready[start : start + CHUNK], messages, frames)


def _write(recipients: Recipients, start: int, stop: int, frames: bytes) -> list[Unfinished]:
    """To the ready ones from one place to another. No checkpoint lies between their being ready and the write."""
    unfinished: list[Unfinished] = []
    # Encrypted first and written then: writes in close order find the other side awake, and cost half.
    encrypted = _encrypted(recipients, start, stop, frames, unfinished) if recipients.encrypted else None
    while start < stop:
        taken: list[int] = []
        payloads = repeat(frames) if encrypted is None else encrypted
        try:
            # Where a write fails, what the ones before it took is in the list, and says whose it was.
            taken.extend(map(os.write, recipients.fds[start:stop], payloads))
        except BlockingIOError:
            taken.append(0)
        except OSError:
            taken.append(_GONE)
        # No socket takes more than it is given, so the sums are equal only if all of them are.
        given = len(frames) * len(taken) if encrypted is None else sum(map(len, encrypted[: len(taken)]))
        if sum(taken) != given:
            recipients.served = start + len(taken)
            for place, (bytes_taken, payload) in enumerate(zip(taken, payloads, strict=False), start):
                client = recipients.clients[place]
                if client is not None and bytes_taken != len(payload):
                    unfinished.append(_left(client, payload, bytes_taken))
        start += len(taken)
        encrypted = None if encrypted is None else encrypted[len(taken) :]
    recipients.served = stop
    return unfinished


def _encrypted(
    recipients: Recipients, start: int, stop: int, frames: bytes, unfinished: list[Unfinished]
) -> list[bytes]:
    """What to write for each of them, over TLS: b"" where there is nobody any more."""
    encrypted: list[bytes] = []
    for client in recipients.clients[start:stop]:
        try:
            encrypted.append(b"" if client is None else client.transport.encrypt(frames))
        except OSError:
            assert client is not None
            unfinished.append((client, Delivery.GONE, ()))
            encrypted.append(b"")
    return encrypted


def _left(client: HubClient, payload: bytes, taken: int) -> Unfinished:
    if taken == _GONE:
        return client, Delivery.GONE, ()
    if client.transport.encrypted:
        client.transport.keep(memoryview(payload)[taken:])
    else:
        client.unsent = memoryview(payload)[taken:]
    client.fall_behind()
    return client, Delivery.QUEUED, ()


def _deliver(
    clients: Sequence[HubClient], messages: Sequence[OutgoingMessage], frames: bytes
) -> list[Unfinished]:
    """To those whose sockets are not simply written to: a queue that has not emptied, an expired token."""
    unfinished: list[Unfinished] = []
    for client in clients:
        delivery, left = client.deliver_all(messages, frames)
        if delivery is not Delivery.DONE:
            unfinished.append((client, delivery, left))
    return unfinished
