"""Closing sockets whose descriptors another thread may be using.

A number that is free is the next socket's. So while a write to a descriptor is in flight in another thread, closing
it waits for the end of the flight: else the bytes of one client could go to another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress


class Descriptors:
    """Those of this process that are in flight. For Trio's thread only."""

    def __init__(self) -> None:
        self._flights: list[Sequence[int]] = []
        self._flying: set[int] | None = None
        """All that are in these; made when the first of them is to be closed, for many may follow."""
        self._closing: list[int] = []

    @contextmanager
    def in_flight(self, fds: Sequence[int]) -> Iterator[None]:
        """Inside of it none of these is closed; those that were to be are closed at its end."""
        self._flights.append(fds)
        self._flying = None
        try:
            yield
        finally:
            self._flights = [flight for flight in self._flights if flight is not fds]
            self._flying = None
            closing, self._closing = self._closing, []
            for fd in closing:
                self.close(fd)

    def close(self, fd: int) -> None:
        """Close it now, or when its flight ends."""
        if self._flying is None:
            self._flying = set().union(*self._flights)
        if fd in self._flying:
            self._closing.append(fd)
        else:
            with suppress(OSError):  # a network error does not matter any more
                os.close(fd)


DESCRIPTORS = Descriptors()
"""One for all, as a process has one table of descriptors."""
