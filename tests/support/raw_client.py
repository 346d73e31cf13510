"""A client of `/ws/cluster` on a bare socket: the test decides what it reads and how fast."""

from __future__ import annotations

import select
import socket as stdlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from .daemon_process import Daemon
from .deadlines import SECONDS
from .wire import CLOSE, TEXT, Frame, Frames, upgrade


class RawClient:
    """Reads only when asked to."""

    def __init__(
        self, daemon: Daemon, token: str, *, receive_buffer: int | None = None, deflate: bool = False
    ) -> None:
        self.socket = stdlib.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(SECONDS)
        host, port = daemon.address.rsplit(":", 1)
        self.socket.connect((host, int(port)))
        self.socket.sendall(upgrade(daemon.address, token, deflate=deflate))
        self.frames = Frames()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_frames(self, size: int = 65_536) -> Iterator[Frame]:
        """Frames as they come, until the connection ends."""
        while True:
            try:
                data = self.socket.recv(size)
            except ConnectionResetError:
                return
            if not data:
                return
            yield from self.frames.feed(data)

    def wait_for(self, wanted: Callable[[Frame], bool]) -> Frame:
        """The next frame that fits; others are passed over."""
        for frame in self.read_frames():
            if wanted(frame):
                return frame
        raise AssertionError("the connection ended first")

    def wait_for_message(self, kind: str) -> None:
        self.wait_for(lambda frame: frame.opcode == TEXT and frame.message()["type"] == kind)

    def wait_upgraded(self) -> None:
        """Until the daemon has taken it as a client."""
        while not self.frames.head:
            data = self.socket.recv(1)
            assert data, "refused"
            assert list(self.frames.feed(data)) == []
        assert self.frames.head.startswith(b"HTTP/1.1 101 ")

    def ending(self) -> tuple[int | None, float]:
        """The code of the close frame (None: none came), and the seconds from it to the end of the connection,
        which the daemon has to make: this client neither answers nor closes."""
        code, at = None, time.monotonic()
        for frame in self.read_frames():
            if frame.opcode == CLOSE:
                code, at = frame.close_code, time.monotonic()
        return code, time.monotonic() - at

    def gone(self) -> bool:
        """The daemon has cut it. Found out without reading."""
        poll = select.poll()
        poll.register(self.socket, 0)  # poll reports a reset or an end of both directions unasked
        return bool(poll.poll(0))


@contextmanager
def closing(clients: list[RawClient]) -> Iterator[list[RawClient]]:
    """Closes all that is in the list by the end of the block."""
    try:
        yield clients
    finally:
        for client in clients:
            client.socket.close()
