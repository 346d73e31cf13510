"""The fast path: one frame to many clients, straight to their sockets.

Waking a task for each delivery is what costs in a fan-out, so none is woken: a client for whom nothing waits
gets the shared frame by one non-blocking write, here. Only what did not fit becomes a pump's work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..message import Message
from .client import BATCH_BYTES, Client, Delivery

CHUNK = 64
"""Clients served between two checkpoints. It sets the loop's lag: the more, the longer everybody else waits."""


def groups(told: Sequence[Message]) -> Iterator[list[Message]]:
    """The messages in runs of at most `BATCH_BYTES`, so that no client is owed more by one write than a pump
    would have taken at once."""
    group: list[Message] = []
    size = 0
    for message in told:
        if group and size + len(message.payload) > BATCH_BYTES:
            yield group
            group, size = [], 0
        group.append(message)
        size += len(message.payload)
    if group:
        yield group


Unfinished = tuple[Client, Delivery, Sequence[Message]]
"""A client for whom something is left to do, and the messages that it did not get."""


def write(clients: Sequence[Client], messages: Sequence[Message], frames: bytes) -> list[Unfinished]:
    """Give `frames`, which are `messages` joined in the form these clients agreed to, to each without waiting.

    Returns those for whom something is left to do. No checkpoint lies between reading a client's descriptor and
    writing to it: across one, the number could have become another client's.
    """
    size = len(frames)
    count = len(messages)
    write_now = os.write
    unfinished: list[Unfinished] = []
    for client in clients:
        fileno = client.fileno
        if fileno is None or client.behind or client.held or client.goodbye is not None:
            delivery, left = client.deliver_all(messages)
            if delivery is not Delivery.DONE:
                unfinished.append((client, delivery, left))
            continue
        try:
            taken = write_now(fileno(), frames)
        except BlockingIOError:
            taken = 0
        except (OSError, ValueError):
            unfinished.append((client, Delivery.GONE, ()))
            continue
        client.sent += count
        if taken != size:
            client.rest = memoryview(frames)[taken:]
            client.behind = True
            unfinished.append((client, Delivery.QUEUED, ()))
    return unfinished
