"""The engine that writes in the loop itself: the writes of a chunk of clients are one call of `map` over their
descriptors."""

from __future__ import annotations

import os
from itertools import repeat
from typing import Final

from .client import HubClient
from .fanout import CHUNK, GONE, Settle, keep_rest
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
        for first in range(start, places, CHUNK):
            for client in _write(recipients, first, min(first + CHUNK, places), frames):
                settle(client)
            if time_slice.over:
                await time_slice.pause()


def _write(recipients: Recipients, start: int, stop: int, frames: bytes) -> list[HubClient]:
    """To the ready ones from one place to another; returns those for which something is left to do. No checkpoint
    lies between their being ready and the write."""
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
