"""Which sockets can be read: one epoll for all WebSocket clients, beside Trio's own.

A read pump that waited in Trio's epoll would cost every idle client a kilobyte and every message three system
calls. Here a socket is registered once, edge-triggered, and its pump sleeps as a bare task.
"""

from __future__ import annotations

import select
from typing import Protocol

import trio

BATCH = 64
"""Sockets handled between two checkpoints."""

_ENDING = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Reader(Protocol):
    """Reads from one socket."""

    def readable(self, *, ending: bool) -> None:
        """The socket has bytes, or with `ending` its end. Called once for all of them: read until none are left."""


class Readiness:
    """Calls readers when their sockets can be read. Everything but `run` is synchronous.

    After `run` has ended no reader is called; `add` and `discard` stay allowed, as they happen during cancellation.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Reader] = {}

    def add(self, fd: int, reader: Reader) -> None:
        """Call `reader` for this socket from now on, also for bytes that are there already."""
        if self._epoll.closed:
            return
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._readers[fd] = reader

    def discard(self, fd: int) -> None:
        """Stop that. Call it before the socket is closed: its number may belong to another one right after."""
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    async def run(self) -> None:
        """Call readers, until cancelled."""
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
