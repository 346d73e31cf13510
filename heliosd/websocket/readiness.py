"""Who has something to read: one epoll for all clients' sockets, beside Trio's own.

A read pump that waited on Trio's epoll would cost every parked client a kilobyte and every message from it three
system calls. Here a socket is registered once, edge-triggered, and its pump parks as a bare task.
"""

from __future__ import annotations

import select
from typing import Protocol

import trio

BATCH = 64
"""Sockets seen to between two checkpoints."""

_ENDING = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Reader(Protocol):
    """Whoever reads from one socket."""

    def readable(self, *, ending: bool) -> None:
        """Something has come, or with `ending` the end. Told once for all that came: read until nothing is left."""


class Readiness:
    """Tells readers that their sockets can be read. Everything but `run` is synchronous.

    Once `run` has ended nobody is told anything; sockets may still come and go, as they do when all is cancelled.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Reader] = {}

    def add(self, fd: int, reader: Reader) -> None:
        """From now on `reader` is told of this socket; at once, too, of what had come before."""
        if self._epoll.closed:
            return
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._readers[fd] = reader

    def discard(self, fd: int) -> None:
        """No longer. Call it before the socket is closed: its number may be another's right after."""
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    async def run(self) -> None:
        """Tell, until cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for fd, events in self._epoll.poll(0, BATCH):
                    reader = self._readers.get(fd)
                    # Another reader of this batch may have closed this one.
                    if reader is not None:
                        reader.readable(ending=bool(events & _ENDING))
        finally:
            self._readers.clear()
            self._epoll.close()
