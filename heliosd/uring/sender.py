"""Sends to many sockets from other threads, a ring each, while Trio's thread does something else."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import socket as stdlib
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate

import structlog
import trio

from heliosd.websocket.descriptors import DESCRIPTORS

from .ring import GONE, Ring, Short
from .scheduling import behind_the_loop, loop_first

ENTRIES = 128
"""Sockets that one system call sends to: in some 0.6 ms, in which nothing else runs on that CPU. With 64 the loop
waits no less, and a thread needs the GIL twice as often."""
FLIGHT = 8192
"""Sockets that a thread is given at once: some 40 ms of work. Handing them over and landing them costs 0.3 ms in a
flood, and more than 0.6 ms after a pause; with 1,024 the last of 5,000 clients has its message 10 % later."""
SWITCH_SECONDS = 0.0005
"""How long Trio's thread keeps the GIL while a worker wants it (Python's default is 5 ms): between two system calls
a worker needs it for some 20 µs."""

log = structlog.get_logger("heliosd")


class UringUnavailable(Exception):
    """This kernel, or what confines this process, does not let io_uring be used. The text says why."""


@dataclass(slots=True)
class _Job:
    """What one thread is to send: to all the same bytes, or to each its own."""

    fds: array[int]
    payloads: bytes | Sequence[bytes]
    first: int
    """The place of its first socket among those of the flight."""
    short: list[Short] = field(default_factory=list)
    failure: BaseException | None = None
    """Why it is not known what the sockets have taken."""

    def results(self) -> list[Short]:
        """Those that did not take all. Where it is not known what they took, nothing may follow it."""
        if self.failure is not None:
            return [(self.first + place, GONE) for place in range(len(self.fds))]
        return self.short


class UringSender:
    """Implements `hub.flights.Sender`. Made by `open_sender`."""

    def __init__(self, workers: Sequence[_Worker], landed: int) -> None:
        self._workers = workers
        self._landed = landed
        self.capacity = FLIGHT * len(workers)

    @property
    def usable(self) -> bool:
        """False: the kernel has refused entries, and nothing should be sent by it any more."""
        return not any(worker.ring.broken for worker in self._workers)

    @property
    def threads(self) -> int:
        return len(self._workers)

    async def send(self, fds: array[int], payloads: bytes | Sequence[bytes]) -> list[Short]:
        """Offer each of these sockets the bytes, or each its own. Returns those that did not take all: place among
        `fds`, and the bytes taken or GONE.

        None of them is closed before it returns. One call at a time. Cancellation does not end it: it waits for no
        socket, so that it takes as long as the kernel needs to copy the bytes.
        """
        share = -(-len(fds) // len(self._workers))
        jobs = []
        with DESCRIPTORS.in_flight(fds):
            for worker, first in zip(self._workers, range(0, len(fds), share), strict=False):
                part = payloads if isinstance(payloads, bytes) else payloads[first : first + share]
                jobs.append(_Job(fds[first : first + share], part, first))
                worker.jobs.put(jobs[-1])
            landed = 0
            with trio.CancelScope(shield=True):
                while landed < len(jobs):
                    await trio.lowlevel.wait_readable(self._landed)
                    landed += os.eventfd_read(self._landed)
        for worker, job in zip(self._workers, jobs, strict=False):
            if job.failure is not None:
                worker.ring.broken = repr(job.failure)
        if not self.usable:
            reason = next(worker.ring.broken for worker in self._workers if worker.ring.broken)
            failure = next((job.failure for job in jobs if job.failure is not None), None)
            log.error(
                "io_uring takes nothing any more; fan-out goes on by os.write",
                reason=reason,
                exc_info=failure,
            )
        return [one for job in jobs for one in job.results()]


class _Worker(threading.Thread):
    """A thread with a ring of its own."""

    def __init__(self, ring: Ring, landed: Callable[[], None]) -> None:
        super().__init__(name="heliosd-fanout", daemon=True)
        self.ring = ring
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._landed = landed

    def run(self) -> None:
        behind_the_loop()
        # Signals are for Trio's thread, and a system call here must not be cut short by one.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (job := self.jobs.get()) is not None:
            try:
                job.short = [(job.first + place, taken) for place, taken in _send(self.ring, job)]
            except BaseException as failure:
                # Trio's thread logs it. This one goes on whatever happens: else the next job would never land.
                job.failure = failure
            finally:
                del job  # it may hold megabytes, and the next one may be long in coming
                self._landed()


def _send(ring: Ring, job: _Job) -> list[Short]:
    if isinstance(job.payloads, bytes):
        return ring.send_same(job.fds, address_of(job.payloads), len(job.payloads))
    joined = b"".join(job.payloads)
    lengths = array("i", map(len, job.payloads))
    start = address_of(joined)
    addresses = array("Q", [start + place for place in accumulate(lengths, initial=0)][:-1])
    return ring.send_each(job.fds, addresses, lengths)


def address_of(data: bytes) -> int:
    """Where the bytes are. They stay there as long as the object lives: CPython moves none."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


@contextmanager
def open_sender(threads: int) -> Iterator[UringSender]:
    """A sender with so many threads, which end with the block. Raises `UringUnavailable`."""
    with ExitStack() as stack:
        try:
            sender = _opened(stack, threads)
        except (OSError, RuntimeError) as error:  # too many descriptors, too many threads
            raise UringUnavailable(f"cannot start {threads} threads with a ring each: {error}") from error
        yield sender


def _opened(stack: ExitStack, threads: int) -> UringSender:
    """What is to be undone at the end is added to `stack`."""
    rings: list[Ring] = []
    for _ in range(threads):
        rings.append(ring_that_works(ENTRIES))
        stack.callback(rings[-1].close)
    landed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    stack.callback(os.close, landed)
    stack.callback(sys.setswitchinterval, sys.getswitchinterval())
    sys.setswitchinterval(SWITCH_SECONDS)
    stack.enter_context(loop_first())
    workers = [_Worker(ring, lambda: os.eventfd_write(landed, 1)) for ring in rings]
    for worker in workers:
        worker.start()
        stack.callback(worker.join)
        stack.callback(worker.jobs.put, None)
    return UringSender(workers, landed)


def ring_that_works(entries: int) -> Ring:
    """A ring that has been seen to send. Raises `UringUnavailable`."""
    try:
        ring = Ring(entries)
    except (OSError, ValueError) as error:
        raise UringUnavailable(f"io_uring_setup: {error}") from error
    try:
        _try(ring)
    except BaseException:
        ring.close()
        raise
    return ring


def _try(ring: Ring) -> None:
    near, far = stdlib.socketpair()
    with near, far:
        near.setblocking(False)
        try:
            if not ring.supports_send():
                raise UringUnavailable("this kernel's io_uring cannot send")
        except OSError as error:
            raise UringUnavailable(f"io_uring_register: {error}") from error
        if ring.send_same(array("i", [near.fileno()]), address_of(b"?"), 1) or far.recv(2) != b"?":
            raise UringUnavailable(f"io_uring_enter: {ring.broken or 'a byte was not sent'}")
