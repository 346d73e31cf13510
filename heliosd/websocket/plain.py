"""A client's TCP connection as a stream, with synchronous reads and writes beside Trio's methods.

It uses a bare non-blocking socket: Trio's stream and socket objects would cost each idle client more than a
kilobyte.
"""

from __future__ import annotations

import os
import socket as stdlib
import struct
from contextlib import suppress

import trio

from .descriptors import DESCRIPTORS

NOTSENT_LOWAT_BYTES = 128 * 1024
PIECE_BYTES = 64 * 1024
_LINGER_ZERO = struct.pack("ii", 1, 0)


def prepare(socket: stdlib.socket | trio.socket.SocketType) -> None:
    """Sets TCP_NODELAY and TCP_NOTSENT_LOWAT (128 KiB), so that a slow client's backlog waits in our queue, where
    it is bounded, and not in the kernel. Connections inherit both from their listening socket."""
    if socket.family != stdlib.AF_UNIX:
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)


def close(socket: stdlib.socket) -> None:
    """Closes a socket: at once for us, for the kernel when no write to it is in flight (`descriptors.py`). Tasks
    that wait on it get `trio.ClosedResourceError`."""
    if socket.fileno() >= 0:
        trio.lowlevel.notify_closing(socket)
        DESCRIPTORS.close(socket.detach())


def abort_socket(socket: stdlib.socket) -> None:
    """Closes a socket with a reset and drops what is queued in it. Never raises; does nothing to a closed one."""
    if socket.fileno() >= 0:
        with suppress(OSError):
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, _LINGER_ZERO)
        close(socket)


async def wait_until_writable(socket: stdlib.socket) -> None:
    """As `trio.lowlevel.wait_writable`. Raises `trio.ClosedResourceError` for a closed socket."""
    if socket.fileno() < 0:
        await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError("this connection was closed")
    await trio.lowlevel.wait_writable(socket)


async def receive(socket: stdlib.socket, max_bytes: int) -> bytes:
    """The next bytes, at most `max_bytes`; b"" at the end. Always a checkpoint.

    Raises `trio.ClosedResourceError` once it is closed here, `trio.BrokenResourceError` when the connection broke.
    """
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
                # Not cancellable, or what was read would be lost.
                await trio.lowlevel.cancel_shielded_checkpoint()
            return data


CONNECTION_LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What the streams of clients raise once the connection is over, also where this side has closed it meanwhile."""


class PlainStream(trio.abc.HalfCloseableStream):
    """A TCP connection as a Trio stream and a `hub.transport.Transport`. It owns the non-blocking socket.

    `send_all` is for HTTP and `write_now` for WebSocket: never use both on one socket at the same time. The same
    holds for `receive_some` and `read_now`.
    """

    __slots__ = ("socket",)

    direct = True
    encrypted = pending = False

    def __init__(self, socket: stdlib.socket) -> None:
        self.socket = socket

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

    def fileno(self) -> int:
        return self.socket.fileno()

    def half_close(self) -> None:
        """Ends our direction without a checkpoint. Raises OSError when the connection is gone."""
        self.socket.shutdown(stdlib.SHUT_WR)

    def read_now(self, max_bytes: int) -> bytes | None:
        """The next bytes, at most `max_bytes`, without waiting: b"" at the end, None when there are none now. Fewer
        than `max_bytes` were all there was. Raises OSError when the connection is gone."""
        try:
            return self.socket.recv(max_bytes)
        except BlockingIOError:
            return None

    def encrypt(self, data: bytes) -> bytes:
        return data

    def keep(self, rest: bytes | memoryview) -> None:
        raise AssertionError("nothing is encrypted here")

    def begin_flight(self) -> None:
        raise AssertionError("nothing is encrypted here")

    def end_flight(self, rest: bytes | memoryview) -> None:
        raise AssertionError("nothing is encrypted here")

    def write_now(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.socket.fileno(), data)
        except BlockingIOError:
            return 0

    async def wait_writable(self) -> None:
        await wait_until_writable(self.socket)

    wait_send_all_might_not_block = wait_writable

    def abort(self) -> None:
        abort_socket(self.socket)
