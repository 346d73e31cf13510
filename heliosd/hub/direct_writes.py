"""The engine that writes in the loop itself: the writes of a chunk of clients are one call of `map` over their
descriptors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import repeat
from typing import Final

from .client import HubClient
from .fanout import GONE, Settle, at_a_time, encrypted_at_once, keep_plaintext, keep_rest
from .recipients import Recipients
from .time_slice import TimeSlice


class DirectWrites:
    """Implements `FanoutEngine` by `os.write`."""

    name: Final = "write"
    threads: Final = 0

    async def write(
        self,
        recipients: Recipients,
        places: int,
        frames: bytes,
        settle: Settle,
        time_slice: TimeSlice,
        *,
        start: int = 0,
    ) -> None:
        """See `FanoutEngine`. Those before the place `start` have been given them."""
        step = at_a_time(frames)
        write = _write_encrypted if recipients.encrypted else _write
        for first in range(start, places, step):
            for client in write(recipients, first, min(first + step, places), frames):
                settle(client)
            if time_slice.over:
                await time_slice.pause()


def _write(
    recipients: Recipients, start: int, stop: int, frames: bytes, encrypted: Sequence[bytes] | None = None
) -> list[HubClient]:
    """To the ready ones from one place to another, over TLS to each its own bytes. Returns those for which there is
    something left to do. No checkpoint lies between their being ready and the write."""
    unfinished: list[HubClient] = []
    while start < stop:
        taken: list[int] = []
        payloads = repeat(frames) if encrypted is None else encrypted
        try:
            # Where a write fails, what the ones before it took is in the list, and says whose it was.
            taken.extend(map(os.write, recipients.fds[start:stop], payloads))
        except BlockingIOError:
            taken.append(0)
        except OSError:
            taken.append(GONE)
        # No socket takes more than it is given, so the sums are equal only if all of them are.
        given = len(frames) * len(taken) if encrypted is None else sum(map(len, encrypted[: len(taken)]))
        if sum(taken) != given:
            recipients.served = start + len(taken)
            for place, (bytes_taken, payload) in enumerate(zip(taken, payloads, strict=False), start):
                client = recipients.clients[place]
                if client is not None and bytes_taken != len(payload):
                    keep_rest(client, payload, bytes_taken)
                    unfinished.append(client)
        start += len(taken)
        encrypted = None if encrypted is None else encrypted[len(taken) :]
    recipients.served = stop
    return unfinished


def _write_encrypted(recipients: Recipients, start: int, stop: int, frames: bytes) -> list[HubClient]:
    """The same over TLS."""
    at_once = encrypted_at_once(frames)
    clients = recipients.clients[start:stop]
    encrypted: list[bytes] = []
    lost: list[HubClient] = []
    # Encrypted first and written then: writes in close order find the other side awake, and cost half.
    for client in clients:
        try:
            encrypted.append(b"" if client is None else client.transport.encrypt(at_once))
        except OSError:
            assert client is not None
            lost.append(client)
            encrypted.append(b"")
    unfinished = _write(recipients, start, stop, at_once, encrypted)
    for client in lost:
        client.lose()
    if len(at_once) == len(frames):
        return [*unfinished, *lost]
    here = [client for client in clients if client is not None]
    for client in here:
        keep_plaintext(client, frames, at_once)
    return here
