"""Ports for servers that a test starts, which no other process gets meanwhile."""

from __future__ import annotations

import socket


class HeldPorts:
    """Ports on 127.0.0.1 that the kernel gives to no other process until `close`.

    Each is held by a bound socket that does not listen. A server that sets SO_REUSEADDR, as Go's and Trio's do, may
    listen on it, also after a restart (socket(7)); bind(0) and outgoing connections of others get other ports.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self) -> int:
        """A port that nothing else has."""
        held = socket.socket()
        self._held.append(held)
        held.bind(("127.0.0.1", 0))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return int(held.getsockname()[1])

    def close(self) -> None:
        while self._held:
            self._held.pop().close()


_held = HeldPorts()


def free_port() -> int:
    """A port on 127.0.0.1 on which nothing listens, for this test process until it ends."""
    return _held.take()
