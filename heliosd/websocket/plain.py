"""A client's TCP connection, and what every connection to this daemon can do beside Trio's stream methods."""

from __future__ import annotations

import os
import socket as stdlib
import struct
from collections.abc import Callable
from contextlib import suppress

import trio

NOTSENT_LOWAT_BYTES = 128 * 1024
_LINGER_ZERO = struct.pack("ii", 1, 0)


def prepare(socket: trio.socket.SocketType) -> None:
    """Makes a socket ready for a client that stays: the kernel takes no more than 128 KiB that it cannot send yet,
    so that a slow client's backlog stands in our queue, where it is counted and bounded. Raises OSError when it
    is gone."""
    socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)


def cut(socket: trio.socket.SocketType) -> None:
    """Closes a socket with a reset and drops what is queued in it. Never raises; a closed socket stays
    closed."""
    if socket.fileno() >= 0:
        with suppress(OSError):
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, _LINGER_ZERO)
        socket.close()


async def wait_until_writable(socket: trio.socket.SocketType) -> None:
    """As `trio.lowlevel.wait_writable`, but a socket that was closed before raises
    `trio.ClosedResourceError`."""
    if socket.fileno() < 0:
        await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError("this connection was closed")
    await trio.lowlevel.wait_writable(socket)


class PlainStream(trio.abc.HalfCloseableStream):
    """A TCP connection as a Trio stream that is an `Outlet` as well.

    `send_all` and `write_now` are two ways into one socket: use the first to refuse a request and the second on a
    WebSocket, never both at once.
    """

    __slots__ = ("_stream", "fileno", "socket")

    direct = True
    pending = False

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        # Trio's own `fileno` is a call more for each delivery, and one that wanders through memory.
        self.fileno: Callable[[], int] = stream.socket._sock.fileno  # type: ignore[attr-defined]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def half_close(self) -> None:
        """Ends our direction without a checkpoint. Raises OSError when the connection is gone."""
        self.socket.shutdown(stdlib.SHUT_WR)

    def write_now(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.fileno(), data)
        except BlockingIOError:
            return 0

    async def wait_writable(self) -> None:
        await wait_until_writable(self.socket)

    def abort(self) -> None:
        cut(self.socket)
