"""One io_uring that sends to many sockets with one system call and waits for none of them.

The entries lie in memory that is shared with the kernel. All but three fields of them are always the same, so they
are written once; descriptors, addresses and lengths are patched by one strided assignment each. Where all are sent
the same bytes, a system call needs the descriptors only.

Memory order. The kernel's rule (the note at the head of io_uring/io_uring.c, and io_uring(7)): the writer of a ring
stores its tail with release semantics after the entries, the reader loads the tail with acquire semantics before
them. Python has neither, and arm64 reorders plain accesses. It is right here all the same, for three reasons:

1. There is no IORING_SETUP_SQPOLL, so the kernel reads the submission queue inside of io_uring_enter only, on the
   thread that called it: one thread sees its own stores in program order, also across a system call.
2. Sends with MSG_DONTWAIT complete inside of io_uring_enter, on the same thread, so the same holds for the
   completion queue. Should one complete elsewhere, `_see_through` waits in io_uring_enter: there the kernel itself
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
from collections.abc import Iterator, Sequence

from . import syscalls

ENTRY_BYTES = 64
_ENTRY = struct.Struct("=BBHiQQIIQ24x")
"""`struct io_uring_sqe`: opcode, flags, ioprio, fd, off, addr, len, msg_flags, user_data."""
_FD, _ADDRESS, _LENGTH = 1, 2, 6
"""Where these stand in an entry, in units of their own size."""
_WORDS_AN_ENTRY, _LONGS_AN_ENTRY = ENTRY_BYTES // 4, ENTRY_BYTES // 8
_COMPLETION_BYTES = 16
_COMPLETION = struct.Struct("=QiI")
"""`struct io_uring_cqe`: user_data, res, flags."""
_RESULT, _WORDS_A_COMPLETION = 2, _COMPLETION_BYTES // 4

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
        self._completions_at = cq[5]
        size = max(sq[6] + sq_entries * 4, cq[5] + cq_entries * _COMPLETION_BYTES)
        self._rings = mmap.mmap(self._ring, size, offset=syscalls.OFFSET_RINGS, **how)
        self._entries = mmap.mmap(self._ring, sq_entries * ENTRY_BYTES, offset=syscalls.OFFSET_ENTRIES, **how)
        self._words = memoryview(self._rings)[: size // 4 * 4].cast("I")
        self._entry_words = memoryview(self._entries).cast("i")
        self._entry_longs = memoryview(self._entries).cast("Q")
        self._sq_head, self._sq_tail = sq[0] // 4, sq[1] // 4
        self._cq_head, self._cq_tail = cq[0] // 4, cq[1] // 4
        self.entries, self._cq_entries = sq_entries, cq_entries
        self._tail = 0
        """Entries given to the kernel so far. Between two sends so many completions have been seen."""
        # Place in the queue = place among the entries, for good.
        self._words[sq[6] // 4 : sq[6] // 4 + sq_entries] = memoryview(array("I", range(sq_entries)))
        flags = syscalls.MSG_DONTWAIT | syscalls.MSG_NOSIGNAL
        for place in range(sq_entries):
            entry = _ENTRY.pack(syscalls.OP_SEND, 0, 0, -1, 0, 0, 0, flags, place)
            self._entries[place * ENTRY_BYTES : (place + 1) * ENTRY_BYTES] = entry
        self._all_taken = bytearray().join(_COMPLETION.pack(place, 0, 0) for place in range(sq_entries))
        """The completions of all entries, in order, if each socket takes all that it is given."""
        self._all_taken_words = memoryview(self._all_taken).cast("i")

    def close(self) -> None:
        """Give it back to the kernel. Nothing is in flight."""
        for view in (self._words, self._entry_words, self._entry_longs):
            view.release()
        self._rings.close()
        self._entries.close()
        os.close(self._ring)

    def supports_send(self) -> bool:
        """Whether the kernel can send by it. Raises OSError."""
        return syscalls.supports(self._ring, syscalls.OP_SEND)

    def send_same(self, fds: array[int], address: int, length: int) -> list[Short]:
        """Offer each of these sockets ("i") the same bytes. Returns those that did not take all.

        The memory and the descriptors must stay what they are until it returns. Once `broken` is set the kernel
        takes no entries any more: then the sockets that are left have taken nothing.
        """
        self._describe(0, array("Q", [address]) * self.entries, array("i", [length]) * self.entries)
        return self._send(fds, None)

    def send_each(self, fds: array[int], addresses: array[int], lengths: array[int]) -> list[Short]:
        """The same, where each is offered the bytes of the same place in `addresses` ("Q") and `lengths` ("i")."""
        return self._send(fds, (addresses, lengths))

    def _send(self, fds: array[int], each: tuple[array[int], array[int]] | None) -> list[Short]:
        # After a system call this finds cold caches, and each step of the loop costs: there are few calls, what is
        # the same for all is not touched, and results are compared as bytes.
        short: list[Short] = []
        numbers, start = memoryview(fds), 0
        entries, words, cq_head, cq_tail = self.entries, self._words, self._cq_head, self._cq_tail
        while start < len(fds):
            if self.broken:
                return short + [(place, 0) for place in range(start, len(fds))]
            begin = self._tail
            first = begin % entries
            # Up to the end of the queue: so none of what is patched or compared is in two parts.
            count = submitted = min(entries - first, len(fds) - start)
            if each is not None:
                addresses, lengths = each
                self._describe(first, addresses[start : start + count], lengths[start : start + count])
            at, stop = first * _WORDS_AN_ENTRY + _FD, (first + count) * _WORDS_AN_ENTRY
            self._entry_words[at:stop:_WORDS_AN_ENTRY] = numbers[start : start + count]
            self._tail = words[self._sq_tail] = (begin + count) & _WORD
            try:
                taken = syscalls.enter(self._ring, count)
            except OSError:
                taken = 0
            if taken != count or words[cq_tail] != self._tail:
                submitted = self._see_through(begin, count, taken)
            at = self._completions_at + begin % self._cq_entries * _COMPLETION_BYTES
            completions = self._rings[at : at + submitted * _COMPLETION_BYTES]
            words[cq_head] = self._tail  # the kernel may use their places again
            at = first * _COMPLETION_BYTES
            if completions != self._all_taken[at : at + count * _COMPLETION_BYTES]:
                short += [(start - first + place, taken) for place, taken in self._not_whole(completions)]
                short += [(start + index, 0) for index in range(submitted, count)]
            start += count
        return short

    def _describe(self, first: int, addresses: array[int], lengths: array[int]) -> None:
        """What the entries from `first` on are to send."""
        stop = first + len(lengths)
        longs = slice(first * _LONGS_AN_ENTRY + _ADDRESS, stop * _LONGS_AN_ENTRY, _LONGS_AN_ENTRY)
        self._entry_longs[longs] = memoryview(addresses)
        words = slice(first * _WORDS_AN_ENTRY + _LENGTH, stop * _WORDS_AN_ENTRY, _WORDS_AN_ENTRY)
        self._entry_words[words] = memoryview(lengths)
        results = slice(
            first * _WORDS_A_COMPLETION + _RESULT, stop * _WORDS_A_COMPLETION, _WORDS_A_COMPLETION
        )
        self._all_taken_words[results] = memoryview(lengths)

    def _see_through(self, begin: int, count: int, submitted: int) -> int:
        """The kernel has taken `submitted` of `count` entries. Returns how many it took in the end, once those are
        completed: fewer than `count` only if it takes no more, then `broken`."""
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
                self._tail = self._words[self._sq_tail] = (begin + submitted) & _WORD
                break
        while (missing := (self._tail - self._words[self._cq_tail]) & _WORD) > 0:
            try:
                syscalls.enter(self._ring, 0, wait_for=missing)
            except InterruptedError:
                continue
        return submitted

    def _not_whole(self, completions: bytes) -> Iterator[tuple[int, int]]:
        """Which entries were not sent whole, and what their sockets took."""
        for place, result, _ in _COMPLETION.iter_unpack(completions):
            if result != self._entry_words[place * _WORDS_AN_ENTRY + _LENGTH]:
                yield place, _bytes_taken(result)


def _bytes_taken(result: int) -> int:
    """Of one completion: bytes, or `-errno`."""
    if result >= 0:
        return result
    return 0 if -result in _TRY_AGAIN else GONE
