"""A client's TCP connection, and what every connection to this daemon can do beside Trio's stream methods.

It stands on a bare non-blocking socket: Trio's own stream and socket objects would cost each client that is parked
here a kilobyte and more.
"""

from __future__ import annotations

import os
import socket as stdlib
import struct
from collections.abc import Callable
from contextlib import suppress

import trio

NOTSENT_LOWAT_BYTES = 128 * 1024
PIECE_BYTES = 64 * 1024
_LINGER_ZERO = struct.pack("ii", 1, 0)


def prepare(socket: stdlib.socket | trio.socket.SocketType) -> None:
    """Makes a socket ready for clients that stay: what is written goes out at once, and the kernel takes no more
    than 128 KiB that it cannot send yet, so that a slow client's backlog stands in our queue, where it is counted
    and bounded. Connections inherit both from the socket that they were accepted on. Raises OSError when it is
    gone."""
    socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
    socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)


def close(socket: stdlib.socket) -> None:
    """Closes a socket. Tasks that wait on it get `trio.ClosedResourceError`."""
    if socket.fileno() >= 0:
        trio.lowlevel.notify_closing(socket)
        with suppress(OSError):  # what the network did to it concerns nobody any more
            socket.close()


def abort_socket(socket: stdlib.socket) -> None:
    """Closes a socket with a reset and drops what is queued in it. Never raises; a closed socket stays
    closed."""
    if socket.fileno() >= 0:
        with suppress(OSError):
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, _LINGER_ZERO)
        close(socket)


async def wait_until_writable(socket: stdlib.socket) -> None:
    """As `trio.lowlevel.wait_writable`, but a socket that was closed before raises
    `trio.ClosedResourceError`."""
    if socket.fileno() < 0:
        await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError("this connection was closed")
    await trio.lowlevel.wait_writable(socket)


async def receive(socket: stdlib.socket, max_bytes: int) -> bytes:
    """What has come, at most so much; b"" at the end. Raises `trio.ClosedResourceError` once we closed it, and
    `trio.BrokenResourceError` when the connection is broken. A checkpoint on every path."""
    await trio.lowlevel.checkpoint_if_cancelled()
    waited = False
    while True:
        if socket.fileno() < 0:
            raise trio.ClosedResourceError("this connection was closed")
        try:
            data = socket.recv(max_bytes)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(socket)
            waited = True
        except OSError as error:
            raise trio.BrokenResourceError("the peer is gone") from error
        else:
            if not waited:
                # Not cancellable: what was read would be lost.
                await trio.lowlevel.cancel_shielded_checkpoint()
            return data


class PlainStream(trio.abc.HalfCloseableStream):
    """A TCP connection as a Trio stream that is an `Outlet` as well. It takes a non-blocking socket over.

    `send_all` and `write_now` are two ways into one socket: use the first to refuse a request and the second on a
    WebSocket, never both at once. So are `receive_some` and `read_now` two ways out of it.
    """

    __slots__ = ("fileno", "socket")

    direct = True
    encrypted = pending = False

    def __init__(self, socket: stdlib.socket) -> None:
        self.socket = socket
        self.fileno: Callable[[], int] = socket.fileno

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.socket.fileno() < 0:
            raise trio.ClosedResourceError("this connection was closed")
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                try:
                    sent += self.socket.send(view[sent:])
                except BlockingIOError:
                    await wait_until_writable(self.socket)
                except OSError as error:
                    raise trio.BrokenResourceError("the peer is gone") from error

    async def wait_send_all_might_not_block(self) -> None:
        await wait_until_writable(self.socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        return await receive(self.socket, PIECE_BYTES if max_bytes is None else max_bytes)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        with suppress(OSError):
            self.half_close()

    async def aclose(self) -> None:
        close(self.socket)
        await trio.lowlevel.checkpoint()

    def half_close(self) -> None:
        """Ends our direction without a checkpoint. Raises OSError when the connection is gone."""
        self.socket.shutdown(stdlib.SHUT_WR)

    def read_now(self, max_bytes: int) -> bytes | None:
        """What has come, at most so much, without waiting: b"" at the end, None where nothing has. Fewer bytes than
        `max_bytes` were all there was. Raises OSError when the connection is gone."""
        try:
            return self.socket.recv(max_bytes)
        except BlockingIOError:
            return None

    def encrypt(self, data: bytes) -> bytes:
        return data

    def keep(self, rest: bytes | memoryview) -> None:
        raise AssertionError("nothing is sealed here")

    def write_now(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.fileno(), data)
        except BlockingIOError:
            return 0

    async def wait_writable(self) -> None:
        await wait_until_writable(self.socket)

    def abort(self) -> None:
        abort_socket(self.socket)
