"""Clients' connections without a kernel: how much a socket takes is set by the test."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio

from heliosd.hub.client import HubClient
from heliosd.hub.fanout import GONE

FOREVER = 10**9


class Descriptors:
    """In place of the module `os` in the fast path: each write goes to the socket that has the descriptor now."""

    def __init__(self) -> None:
        self._sockets: dict[int, FakeSocket] = {}
        self.flying: set[int] = set()
        self._closing: list[int] = []

    def open(self, socket: FakeSocket) -> int:
        """The lowest free number, as the kernel gives it."""
        number = next(number for number in range(len(self._sockets) + 1) if number not in self._sockets)
        self._sockets[number] = socket
        return number

    def close(self, number: int) -> None:
        """At once, or when what is in flight has landed; as `websocket.descriptors`."""
        if number in self.flying:
            self._closing.append(number)
        else:
            del self._sockets[number]

    @contextmanager
    def in_flight(self, numbers: Iterable[int]) -> Iterator[None]:
        """Another thread may write to these."""
        self.flying = set(numbers)
        yield
        self.flying = set()
        while self._closing:
            self.close(self._closing.pop())

    def write(self, number: int, data: bytes) -> int:
        if number not in self._sockets:
            raise OSError("no such descriptor")
        return self._sockets[number].write_direct(data)


class FakeSender:
    """In place of `uring.sender.UringSender`: one socket a checkpoint, so that anything may happen in between."""

    capacity = 3
    threads = 1
    usable = True

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors

    async def send(self, fds: Sequence[int], payloads: bytes | Sequence[bytes]) -> list[tuple[int, int]]:
        each = [payloads] * len(fds) if isinstance(payloads, bytes) else payloads
        short = []
        with self._descriptors.in_flight(fds), trio.CancelScope(shield=True):
            for place, (fd, payload) in enumerate(zip(fds, each, strict=True)):
                await trio.lowlevel.checkpoint()
                try:
                    taken = self._descriptors.write(fd, payload)
                except BlockingIOError:
                    taken = 0
                except OSError:
                    taken = GONE
                if taken != len(payload):
                    short.append((place, taken))
            await trio.lowlevel.checkpoint()
        return short


class FakeSocket:
    """A WebSocket's transport; with `encrypted` like TLS: it takes all or nothing, and keeps what does not fit."""

    direct = True

    def __init__(self, descriptors: Descriptors, *, encrypted: bool = False) -> None:
        self.encrypted = encrypted
        self.room = FOREVER
        self.broken = False
        self.messages: list[dict[str, Any]] = []
        """What has come to the client, in order."""
        self.frames = 0
        """How many frames that were, pings, pongs and closes included."""
        self.message_bytes = 0
        """Bytes of the frames of the messages."""
        self.close_code: int | None = None
        self._wire = bytearray()
        self._kept = b""
        self._in_flight = False
        self._descriptors = descriptors
        self._number = descriptors.open(self)
        self._writable = trio.Event()

    @property
    def kept(self) -> int:
        """Bytes of ciphertext that the socket has not taken yet."""
        return len(self._kept)

    @property
    def pending(self) -> bool:
        return bool(self._kept)

    def fileno(self) -> int:
        return self._number

    def encrypt(self, data: bytes) -> bytes:
        if self.broken:
            raise BrokenPipeError
        taken, self._kept = self._kept + data, b""
        return taken

    def keep(self, rest: bytes | memoryview) -> None:
        self._kept = bytes(rest) + self._kept

    def begin_flight(self) -> None:
        assert self.encrypted
        assert not self._in_flight
        self._in_flight = True

    def end_flight(self, rest: bytes | memoryview) -> None:
        assert self._in_flight
        self._in_flight = False
        self._kept = bytes(rest) + self._kept

    def write_direct(self, data: bytes) -> int:
        if self.broken:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        return self._take(data)

    def write_now(self, data: bytes | memoryview) -> int:
        assert not self._in_flight
        assert self._number not in self._descriptors.flying, "two frames could mix"
        if self.broken:
            raise BrokenPipeError
        if not self.encrypted:
            return self._take(bytes(data))
        self._kept = self._kept[self._take(self._kept) :]
        if self._kept:
            return 0
        self._kept = bytes(data)[self._take(bytes(data)) :]
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while True:
            while not self.room and not self.broken:
                self._writable = trio.Event()
                await self._writable.wait()
            if self.broken:
                raise trio.BrokenResourceError
            self._kept = self._kept[self._take(self._kept) :]
            if not self._kept:
                return

    def set_room(self, room: int) -> None:
        """So many bytes are taken from now on."""
        self.room = room
        if room:
            self._writable.set()

    def abort(self) -> None:
        """Cut by either side."""
        self.broken = True
        self._writable.set()

    def close(self) -> None:
        """Its descriptor may be another's from now on."""
        self.abort()
        self._descriptors.close(self._number)
        self._number = -1

    def _take(self, data: bytes) -> int:
        taken = min(len(data), self.room)
        self.room -= taken
        self._wire += data[:taken]
        self._parse()
        return taken

    def _parse(self) -> None:
        """Frames of a server are not masked."""
        while len(self._wire) >= 2:
            start, size = 2, self._wire[1]
            if size == 126:
                if len(self._wire) < 4:
                    return
                start, size = 4, struct.unpack(">H", self._wire[2:4])[0]
            elif size == 127:
                if len(self._wire) < 10:
                    return
                start, size = 10, struct.unpack(">Q", self._wire[2:10])[0]
            if len(self._wire) < start + size:
                return
            body, opcode = bytes(self._wire[start : start + size]), self._wire[0] & 15
            del self._wire[: start + size]
            self.frames += 1
            if opcode == 1:
                self.messages.append(json.loads(body))
                self.message_bytes += start + size
            elif opcode == 8:
                self.close_code = struct.unpack(">H", body[:2])[0]


class FakeStream:
    """An event stream: nothing is written to it, its reader fetches from the client. `run` is the reader."""

    direct = encrypted = pending = False

    def __init__(self) -> None:
        self.room = FOREVER
        self.messages: list[dict[str, Any]] = []
        self.frames = self.message_bytes = 0
        self.close_code: int | None = None
        self.broken = False
        self._news = trio.Event()

    def fileno(self) -> int:
        return -1

    def encrypt(self, data: bytes) -> bytes:
        return data

    def keep(self, rest: bytes | memoryview) -> None:
        raise AssertionError("only over TLS")

    def begin_flight(self) -> None:
        raise AssertionError("only over TLS")

    def end_flight(self, rest: bytes | memoryview) -> None:
        raise AssertionError("only over TLS")

    def write_now(self, data: bytes | memoryview) -> int:
        self.wake()
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def set_room(self, room: int) -> None:
        self.room = room
        self.wake()

    def wake(self) -> None:
        self._news.set()

    def abort(self) -> None:
        self.wake()

    def close(self) -> None:
        self.abort()

    async def run(self, client: HubClient) -> None:
        client.waker = self.wake
        while True:
            await trio.lowlevel.checkpoint()
            if self.room and (message := client.take()) is not None:
                self.frames += bool(message.payload)
                if message.payload:
                    self.messages.append(json.loads(message.payload))
                self.message_bytes += len(message.payload)
                continue
            if client.close_reason is not None:
                self.close_code = client.close_reason.code
                return
            if self.room:
                client.behind = False
            self._news = trio.Event()
            await self._news.wait()
