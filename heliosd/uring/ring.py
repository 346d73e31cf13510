"""One io_uring that sends to many sockets with one system call and waits for none of them.

The entries lie in memory that is shared with the kernel. All but three fields of them are always the same, so they
are written once; descriptors, addresses and lengths are patched by one strided assignment each.

Memory order. The kernel's rule (the note at the head of io_uring/io_uring.c, and io_uring(7)): the writer of a ring
stores its tail with release semantics after the entries, the reader loads the tail with acquire semantics before
them. Python has neither, and arm64 reorders plain accesses. It is right here all the same, for three reasons:

1. There is no IORING_SETUP_SQPOLL, so the kernel reads the submission queue inside of io_uring_enter only, on the
   thread that called it: one thread sees its own stores in program order, also across a system call.
2. Sends with MSG_DONTWAIT complete inside of io_uring_enter, on the same thread, so the same holds for the
   completion queue. Should one complete elsewhere, `_complete` waits in io_uring_enter: there the kernel itself
   loads the tail on this thread, and orders the loads that follow behind that.
3. One thread at a time uses a ring. A ring goes from the thread that made it to its worker by starting the thread,
   which is an acquire and a release of locks, as is every taking of the GIL (pthread_mutex_lock and _unlock
   synchronise memory: POSIX.1-2017, XBD 4.12).
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from array import array
from collections.abc import Sequence

from . import syscalls

ENTRY_BYTES = 64
_ENTRY = struct.Struct("<BBHiQQIIQ24x")
"""`struct io_uring_sqe`: opcode, flags, ioprio, fd, off, addr, len, msg_flags, user_data."""
_FD, _ADDRESS, _LENGTH = 1, 2, 6
"""Where these stand in an entry, in units of their own size."""
_WORDS_AN_ENTRY, _LONGS_AN_ENTRY = ENTRY_BYTES // 4, ENTRY_BYTES // 8
_WORDS_A_COMPLETION = 4
_RESULT, _USER_DATA = 2, 0

GONE = -1
"""In place of the number of bytes that a socket took: its connection is over."""

_TRY_AGAIN = {errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.ENOBUFS}
"""The socket took nothing, and may later."""
_WORD = 0xFFFFFFFF

Short = tuple[int, int]
"""A socket that did not take all: which one, and the bytes that it took, or GONE."""


class Ring:
    """Used by one thread at a time. Raises OSError where the kernel does not allow it; see `syscalls.setup`."""

    def __init__(self, entries: int) -> None:
        """`entries` is a power of two: so many sockets are sent to by one system call."""
        self.broken = ""
        """Why the kernel takes no entries any more."""
        self._ring, parameters = syscalls.setup(entries)
        try:
            self._map(parameters)
        except (OSError, ValueError):
            os.close(self._ring)
            raise

    def _map(self, parameters: Sequence[int]) -> None:
        sq_entries, cq_entries = parameters[0], parameters[1]
        sq, cq = parameters[10:20], parameters[20:30]
        how = {"flags": mmap.MAP_SHARED, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
        size = max(sq[6] + sq_entries * 4, cq[5] + cq_entries * 16)
        self._rings = mmap.mmap(self._ring, size, offset=syscalls.OFFSET_RINGS, **how)
        self._entries = mmap.mmap(self._ring, sq_entries * ENTRY_BYTES, offset=syscalls.OFFSET_ENTRIES, **how)
        rings, entries = memoryview(self._rings), memoryview(self._entries)
        self._words = rings[: size // 4 * 4].cast("I")
        self._completions = rings[cq[5] : cq[5] + cq_entries * 16].cast("i")
        self._fds, self._lengths = entries.cast("i"), entries.cast("I")
        self._addresses = entries.cast("Q")
        self._sq_head, self._sq_tail = sq[0] // 4, sq[1] // 4
        self._cq_head, self._cq_tail = cq[0] // 4, cq[1] // 4
        self.entries, self._cq_entries = sq_entries, cq_entries
        self._tail = self._seen = 0
        # Place in the queue = place among the entries, for good.
        self._words[sq[6] // 4 : sq[6] // 4 + sq_entries] = memoryview(array("I", range(sq_entries)))
        flags = syscalls.MSG_DONTWAIT | syscalls.MSG_NOSIGNAL
        for place in range(sq_entries):
            entry = _ENTRY.pack(syscalls.OP_SEND, 0, 0, -1, 0, 0, 0, flags, place)
            self._entries[place * ENTRY_BYTES : (place + 1) * ENTRY_BYTES] = entry

    def close(self) -> None:
        """Give it back to the kernel. Nothing is in flight."""
        for view in (self._words, self._completions, self._fds, self._lengths, self._addresses):
            view.release()
        self._rings.close()
        self._entries.close()
        os.close(self._ring)

    def supports_send(self) -> bool:
        """Whether the kernel can send by it. Raises OSError."""
        return syscalls.supports(self._ring, syscalls.OP_SEND)

    def send(self, fds: Sequence[int], addresses: array[int], lengths: array[int]) -> list[Short]:
        """Offer each of these sockets the bytes of the same place in `addresses` ("Q") and `lengths` ("I"). Returns
        those that did not take all.

        The memory and the descriptors must stay what they are until it returns. Once `broken` is set the kernel
        takes no entries any more: then the sockets that are left have taken nothing.
        """
        short: list[Short] = []
        for start in range(0, len(fds), self.entries):
            stop = min(start + self.entries, len(fds))
            if self.broken:
                return short + [(place, 0) for place in range(start, len(fds))]
            block = self._send(fds[start:stop], addresses[start:stop], lengths[start:stop])
            short += [(start + place, taken) for place, taken in block]
        return short

    def _send(self, fds: Sequence[int], addresses: array[int], lengths: array[int]) -> list[Short]:
        """At most as many as there are entries."""
        count, first = len(fds), self._tail % self.entries
        at_end = min(count, self.entries - first)
        self._patch(first, fds[:at_end], addresses[:at_end], lengths[:at_end])
        if at_end < count:
            self._patch(0, fds[at_end:], addresses[at_end:], lengths[at_end:])
        submitted = self._submit(count)
        completed = self._complete(submitted)
        results = self._column(_RESULT, completed)
        # No socket takes more than it is given, so the sums are equal only if all of them are.
        if submitted == count and sum(results) == sum(lengths):
            self._forget(submitted)
            return []
        places = self._column(_USER_DATA, completed)
        self._forget(submitted)
        short = [(index, 0) for index in range(submitted, count)]
        for result, place in zip(results, places, strict=True):
            index = (place - first) % self.entries
            if result != lengths[index]:
                short.append((index, _bytes_taken(result)))
        return short

    def _patch(self, first: int, fds: Sequence[int], addresses: array[int], lengths: array[int]) -> None:
        """Write the three fields that differ into the entries from `first` on."""
        words = slice(first * _WORDS_AN_ENTRY, (first + len(fds)) * _WORDS_AN_ENTRY)
        longs = slice(first * _LONGS_AN_ENTRY, (first + len(fds)) * _LONGS_AN_ENTRY)
        self._fds[words.start + _FD : words.stop : _WORDS_AN_ENTRY] = memoryview(array("i", fds))
        self._addresses[longs.start + _ADDRESS : longs.stop : _LONGS_AN_ENTRY] = memoryview(addresses)
        self._lengths[words.start + _LENGTH : words.stop : _WORDS_AN_ENTRY] = memoryview(lengths)

    def _submit(self, count: int) -> int:
        """How many of the next `count` entries the kernel took: fewer only if it takes no more, then `broken`."""
        begin = self._tail
        self._set_tail(begin + count)
        submitted = 0
        while submitted < count:
            try:
                # It stops early at an entry that it finds wrong; the rest is for the next call.
                submitted += syscalls.enter(self._ring, count - submitted)
            except InterruptedError:
                continue
            except OSError as error:
                self.broken = str(error)
                submitted = (self._words[self._sq_head] - begin) & _WORD
                # The kernel reads the queue in io_uring_enter only, so what it did not take can be taken back.
                self._set_tail(begin + submitted)
                break
        return submitted

    def _set_tail(self, tail: int) -> None:
        self._tail = tail & _WORD
        self._words[self._sq_tail] = self._tail

    def _complete(self, count: int) -> tuple[slice, slice]:
        """Where the completions of so many entries are, once all are there: up to the queue's end, and from its
        beginning on."""
        while (missing := count - ((self._words[self._cq_tail] - self._seen) & _WORD)) > 0:
            try:
                syscalls.enter(self._ring, 0, wait_for=missing)
            except InterruptedError:
                continue
        first = self._seen % self._cq_entries
        at_end = min(count, self._cq_entries - first)
        return slice(first, first + at_end), slice(0, count - at_end)

    def _column(self, field: int, completed: tuple[slice, slice]) -> list[int]:
        """One field of these completions."""
        column: list[int] = []
        for part in completed:
            start, stop = part.start * _WORDS_A_COMPLETION + field, part.stop * _WORDS_A_COMPLETION
            column += self._completions[start:stop:_WORDS_A_COMPLETION].tolist()
        return column

    def _forget(self, count: int) -> None:
        """The kernel may use the places of so many completions again."""
        self._seen = (self._seen + count) & _WORD
        self._words[self._cq_head] = self._seen


def _bytes_taken(result: int) -> int:
    """Of one completion: bytes, or `-errno`."""
    if result >= 0:
        return result
    return 0 if -result in _TRY_AGAIN else GONE
