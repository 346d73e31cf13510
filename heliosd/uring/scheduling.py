"""Who goes first where the event loop and the threads that send want the same CPU: the event loop.

Linux only, by thread, without a privilege. What the kernel does not grant, or does not know, is left out: then all
works as before, and the loop waits longer in a flood.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SLICE_SECONDS = 0.0001
"""The shortest slice of CPU time that the kernel gives. A thread with short ones may take the CPU from one with
longer ones as soon as it wakes up (Linux 6.12 and newer; older kernels ignore it)."""
SENDER_NICENESS = 5
"""Of a thread that sends, above that of the process: a third of the loop's share of a CPU, where both want it."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "loongarch64": 274}
"""The system call's number (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h)."""
_KEEP_POLICY = 0x08
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""`struct sched_attr` of sched_setattr(2): size, policy, flags, niceness, priority, runtime, deadline, period."""


@contextmanager
def loop_first() -> Iterator[None]:
    """The calling thread, which runs the event loop, gets short slices until the block ends. So do threads and
    programs that it starts meanwhile, but for those that call `behind_the_loop`."""
    _set_slice(SLICE_SECONDS)
    try:
        yield
    finally:
        _set_slice(0)


def behind_the_loop() -> None:
    """The calling thread takes the CPU from no other when it wakes up, and gets less of it than the rest of this
    process, until it ends."""
    _set_slice(0)  # that of the thread that started it is inherited
    niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + SENDER_NICENESS)
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
    with suppress(OSError):
        # Else it would run as soon as it is given work, before the loop has gone on to wait for it.
        os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _set_slice(seconds: float) -> None:
    """Of the calling thread; 0: as long as the kernel finds right."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    nanoseconds = int(seconds * 1_000_000_000)
    wish = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, _KEEP_POLICY, niceness, 0, nanoseconds, 0, 0)
    ctypes.CDLL(None).syscall(ctypes.c_long(number), ctypes.c_int(0), ctypes.c_char_p(wish), ctypes.c_uint(0))
