"""The fast path: the same bytes to many clients, straight to their sockets.

What costs most in a fan-out is waking a task for each delivery, so none is woken: a ready client gets the shared
bytes by one non-blocking write, and the writes of a chunk of clients are one call of `map` over their descriptors.
A pump only writes what did not fit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import repeat

from heliosd.protocol.message import OutgoingMessage

from . import delivery
from .client import BATCH_BYTES, HubClient
from .recipients import Recipients

CHUNK = 32
"""Clients served between two checks whether the time slice is over. With 16 a delivery costs 7 % more."""

_GONE = -1
"""In place of the number of bytes that a socket took."""


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


def broadcast(
    recipients: Recipients, messages: Sequence[OutgoingMessage], frames: bytes
) -> Iterator[list[HubClient]]:
    """Give `frames`, which are `messages` joined in the form that these clients agreed to, to all of them.

    Yields after each chunk the clients for which something is left to do; waits for none. There the caller may let
    other tasks run: clients that join meanwhile are not among the receivers.
    """
    places, not_ready = recipients.begin(len(messages))
    for start in range(0, places, CHUNK):
        yield _write(recipients, start, min(start + CHUNK, places), frames)
    not_ready += recipients.finish()
    for start in range(0, len(not_ready), CHUNK):
        yield _deliver(not_ready[start : start + CHUNK], messages, frames)


def _write(recipients: Recipients, start: int, stop: int, frames: bytes) -> list[HubClient]:
    """To the ready ones from one place to another. No checkpoint lies between their being ready and the write."""
    unfinished: list[HubClient] = []
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
                    _keep_rest(client, payload, bytes_taken)
                    unfinished.append(client)
        start += len(taken)
        encrypted = None if encrypted is None else encrypted[len(taken) :]
    recipients.served = stop
    return unfinished


def _encrypted(
    recipients: Recipients, start: int, stop: int, frames: bytes, unfinished: list[HubClient]
) -> list[bytes]:
    """What to write for each of them, over TLS: b"" where there is nobody any more."""
    encrypted: list[bytes] = []
    for client in recipients.clients[start:stop]:
        try:
            encrypted.append(b"" if client is None else client.transport.encrypt(frames))
        except OSError:
            assert client is not None
            client.gone = True
            unfinished.append(client)
            encrypted.append(b"")
    return encrypted


def _keep_rest(client: HubClient, payload: bytes, taken: int) -> None:
    if taken == _GONE:
        client.gone = True
        return
    if client.transport.encrypted:
        client.transport.keep(memoryview(payload)[taken:])
    else:
        client.unsent = memoryview(payload)[taken:]
    client.fall_behind()


def _deliver(
    clients: Sequence[HubClient], messages: Sequence[OutgoingMessage], frames: bytes
) -> list[HubClient]:
    """To those whose sockets are not simply written to: a queue that has not emptied, an expired token."""
    for client in clients:
        delivery.deliver_all(client, messages, frames)
    return [client for client in clients if client.wants_pump or client.gone or client.is_dropping]
