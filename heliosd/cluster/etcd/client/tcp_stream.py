"""A TCP connection that costs few turns of the event loop."""

from __future__ import annotations

import os

import trio

RECEIVE_BYTES = 65536
KEEPALIVE_IDLE_SECONDS = 5
"""After so long without a byte from the other side, the kernel asks it whether the connection still exists."""
KEEPALIVE_AGAIN_SECONDS = 2
KEEPALIVE_TIMES = 3
"""Without an answer to so many, the connection has ended."""


class TcpStream(trio.abc.Stream):
    """Writes before it waits, and waits before it reads. For one task at a time.

    An answer has never come when it is first waited for, and a short request always fits into the kernel's buffer.
    `trio.SocketStream` tries to read first, and takes a turn of the loop for each write. Here a write that the
    kernel takes at once is no checkpoint: who has sent a request waits for its answer next. Raises
    `trio.BrokenResourceError` and `trio.ClosedResourceError`.
    """

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self.socket = socket
        # A watch sends nothing. Where the other side has forgotten the connection, as after hours in which this
        # machine was suspended, only the kernel's question shows it.
        socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1)
        socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
        socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_KEEPINTVL, KEEPALIVE_AGAIN_SECONDS)
        socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_KEEPCNT, KEEPALIVE_TIMES)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fileno(), left) :]
            except BlockingIOError:
                await self.wait_send_all_might_not_block()
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._fileno())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"at least 1 byte can be received, not {max_bytes}")
        while True:
            await trio.lowlevel.wait_readable(self._fileno())
            try:
                return os.read(self._fileno(), max_bytes or RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def aclose(self) -> None:
        self.socket.close()
        await trio.lowlevel.checkpoint()

    def _fileno(self) -> int:
        fileno = self.socket.fileno()
        if fileno < 0:
            raise trio.ClosedResourceError
        return fileno
