"""The engine that lets other threads write, so that the loop serves everyone else meanwhile.

1. A flight is a run of places whose sockets other threads write to. From `take_off` to `land` the clients in it are
   in flight: nobody else writes to them, and what comes for them waits in their queues. While the threads write,
   their descriptors are not closed (the sender sees to that); who leaves before, while TLS encrypts, is left out.
2. A client may leave during a flight. What its socket took does not matter then.
3. A flight that has begun is finished, whatever is cancelled: it waits for no socket.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Protocol

import trio

from . import delivery
from .client import HubClient
from .direct_writes import DirectWrites
from .fanout import GONE, Settle, at_a_time, encrypted_at_once, keep_plaintext, keep_rest
from .recipients import Recipients
from .time_slice import TimeSlice

WORTH_A_FLIGHT = 100
"""To hand fewer clients over to another thread costs as much as to write to them."""
LANDED_AT_ONCE = 64
"""Clients whose sockets did not take all, or that use TLS, between two looks whether the time slice is over."""
TLS_FLIGHT_BYTES = 4 * 1024 * 1024
"""Of what is encrypted for one flight: each client's ciphertext is other bytes, kept until it has landed."""


class Sender(Protocol):
    """Writes to many sockets from other threads."""

    @property
    def capacity(self) -> int:
        """How many sockets one call is for."""

    @property
    def threads(self) -> int: ...

    @property
    def usable(self) -> bool:
        """False: it cannot send any more."""

    async def send(self, fds: array[int], payloads: bytes | Sequence[bytes]) -> list[tuple[int, int]]:
        """Offer each of these sockets the bytes, or each its own. Returns those that did not take all: place among
        `fds`, and the bytes taken or GONE. None of `fds` is closed before it returns, and cancellation does not end
        it."""


class Flights:
    """Implements `FanoutEngine`. Once the sender has failed, all are written to directly."""

    def __init__(
        self, sender: Sender, *, least: int = 1, over_tls: bool = True, landed_at_once: int = LANDED_AT_ONCE
    ) -> None:
        """Groups of fewer than `least` clients are written to directly, and those over TLS unless `over_tls`."""
        self._sender = sender
        self._over_tls = over_tls
        self._least = least
        self._landed_at_once = landed_at_once
        self._direct = DirectWrites()

    @property
    def name(self) -> str:
        return "uring" if self._sender.usable else self._direct.name

    @property
    def threads(self) -> int:
        return self._sender.threads if self._sender.usable else 0

    async def write(
        self, recipients: Recipients, places: int, frames: bytes, settle: Settle, time_slice: TimeSlice
    ) -> None:
        start, at_once = 0, self._sender.capacity
        if recipients.encrypted:
            by_bytes = TLS_FLIGHT_BYTES // len(encrypted_at_once(frames))
            at_once = max(1, min(at_once, by_bytes))
        tls_apart = recipients.encrypted and not self._over_tls
        if places >= self._least and not tls_apart:
            # Asked before each flight: one of them may be the last that the sender could fly.
            while start < places and self._sender.usable:
                stop = min(start + at_once, places)
                flight = _Flight(recipients, start, stop, settle, time_slice, self._landed_at_once)
                await (flight.fly_encrypted if recipients.encrypted else flight.fly)(self._sender, frames)
                start = stop
        await self._direct.write(recipients, places, frames, settle, time_slice, start=start)


class _Flight:
    """One run of places, and what is done with its clients."""

    def __init__(
        self,
        recipients: Recipients,
        start: int,
        stop: int,
        settle: Settle,
        time_slice: TimeSlice,
        landed_at_once: int,
    ) -> None:
        self._recipients = recipients
        self._start, self._stop = start, stop
        self._settle = settle
        self._time_slice = time_slice
        self._landed_at_once = landed_at_once

    async def fly(self, sender: Sender, frames: bytes) -> None:
        """Let all of them be sent the same bytes."""
        self._recipients.take_off(self._start, self._stop)
        try:
            with trio.CancelScope(shield=True):  # see 3.
                short = sorted(await sender.send(self._fds(), frames))
                # One part at least: none may be short.
                for first in range(0, len(short) or 1, self._landed_at_once):
                    part = short[first : first + self._landed_at_once]
                    last = first + self._landed_at_once >= len(short)
                    touched = self._recipients.land(None if last else self._start + part[-1][0] + 1)
                    await self._see_to([*self._keep_rests(part, frames)], touched)
        finally:
            self._recipients.land()

    async def fly_encrypted(self, sender: Sender, frames: bytes) -> None:
        """The same over TLS, where each is sent other bytes."""
        self._recipients.take_off(self._start, self._stop)
        try:
            with trio.CancelScope(shield=True):  # what has been encrypted must be sent; see 3.
                at_once = encrypted_at_once(frames)
                clients, ciphertexts = await self._encrypt(at_once)
                taken = dict(await sender.send(self._fds(), ciphertexts))
                for first in range(0, len(clients), self._landed_at_once):
                    unfinished: list[HubClient] = []
                    stop = min(first + self._landed_at_once, len(clients))
                    touched = self._recipients.land(self._start + stop)
                    for index, client in enumerate(clients[first:stop], first):
                        if client is None:
                            continue
                        self._end_flight(
                            client, ciphertexts[index], taken.get(index, len(ciphertexts[index]))
                        )
                        if len(at_once) < len(frames) and client.recipients is self._recipients:
                            keep_plaintext(client, frames, at_once)
                        if client.gone or client.wants_pump:
                            unfinished.append(client)
                    await self._see_to(unfinished, touched)
        finally:
            self._recipients.land()

    def _fds(self) -> array[int]:
        """Those that have left since are NOBODY here."""
        return self._recipients.fds[self._start : self._stop]

    def _keep_rests(self, short: Sequence[tuple[int, int]], frames: bytes) -> Iterator[HubClient]:
        for index, taken in short:
            client = self._recipients.clients[self._start + index]
            if client is not None:
                keep_rest(client, frames, taken)
                yield client

    async def _encrypt(self, frames: bytes) -> tuple[list[HubClient | None], list[bytes]]:
        """Who is to be sent something, and what: b"" where there is nobody any more."""
        clients: list[HubClient | None] = []
        ciphertexts: list[bytes] = []
        step = at_a_time(frames)
        for start in range(self._start, self._stop, step):
            for client in self._recipients.clients[start : min(start + step, self._stop)]:
                ciphertext = b"" if client is None else _encrypted(client, frames)
                clients.append(client if ciphertext else None)
                ciphertexts.append(ciphertext)
                if client is not None and client.gone:
                    self._settle(client)
            if self._time_slice.over:
                await self._time_slice.pause()
        return clients, ciphertexts

    def _end_flight(self, client: HubClient, ciphertext: bytes, taken: int) -> None:
        client.transport.end_flight(b"" if taken == GONE else memoryview(ciphertext)[taken:])
        if client.recipients is not self._recipients:
            return
        if taken == GONE:
            client.lose()
        if client.transport.pending:
            client.fall_behind()

    async def _see_to(self, unfinished: Sequence[HubClient], touched: Sequence[HubClient]) -> None:
        """Those that have just landed. For each of them all that is kept has its place before the first pause, so
        that no frames mix; the others are still in flight. What is left to do takes longest: it may be a pump."""
        for client in touched:
            delivery.landed(client)
        for client in [*unfinished, *touched]:
            if client.recipients is not None:  # else it has left in a pause
                self._settle(client)
            if self._time_slice.over:
                await self._time_slice.pause()
        if self._time_slice.over:
            await self._time_slice.pause()


def _encrypted(client: HubClient, frames: bytes) -> bytes:
    """b"" if its connection is over."""
    try:
        ciphertext = client.transport.encrypt(frames)
    except OSError:
        client.lose()
        return b""
    client.transport.begin_flight()
    return ciphertext
