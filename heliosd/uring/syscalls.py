"""The three system calls of io_uring, by ctypes, and the numbers that go with them (linux/io_uring.h).

ctypes lets go of the GIL for the whole of each call, so that other threads run Python meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

# The same on every architecture: io_uring came after the numbers of new calls were unified.
_SETUP, _ENTER, _REGISTER = 425, 426, 427

OP_SEND: Final = 26
MSG_DONTWAIT: Final = 0x40
MSG_NOSIGNAL: Final = 0x4000
OFFSET_RINGS: Final = 0
OFFSET_ENTRIES: Final = 0x10000000
PARAMETERS: Final = 30
"""Words of `struct io_uring_params`: ten, then `sq_off` and `cq_off` of ten each."""

_ENTER_GETEVENTS = 1
_REGISTER_PROBE = 8
_FEATURE_SINGLE_MMAP = 1
_PROBED = 256
_PROBE_HEAD, _PROBE_ENTRY = 16, 8
_OPERATION_SUPPORTED = 1

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
# Without `argtypes`, which would make an object of each argument: where a call has filled the caches with the
# memory of a hundred sockets that costs 5 % of what the call does. Numbers are passed as ints then, as all of
# these are but for the pointers.


def _call(number: int, *arguments: object) -> int:
    """Numbers, and pointers as `ctypes` has them: at most four."""
    result: int = _syscall(number, *arguments, *[None] * (6 - len(arguments)))
    if result < 0:
        raise _failure()
    return result


def _failure() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def setup(entries: int) -> tuple[int, list[int]]:
    """A new ring: its descriptor, which programs that are started do not inherit, and `struct io_uring_params` as
    words. Raises OSError: ENOSYS without io_uring, EPERM where it is not allowed, ENOMEM where memory may not be
    locked, ENOTSUP where both rings are not one mapping (before Linux 5.4)."""
    parameters = (ctypes.c_uint32 * PARAMETERS)()
    ring = _call(_SETUP, entries, ctypes.byref(parameters))
    if not parameters[5] & _FEATURE_SINGLE_MMAP:
        os.close(ring)
        raise OSError(errno.ENOTSUP, "this kernel's io_uring is too old")
    return ring, list(parameters)


def enter(ring: int, submit: int, *, wait_for: int = 0) -> int:
    """Submit so many entries, and wait for so many completions. Returns how many entries were taken."""
    taken: int = _syscall(_ENTER, ring, submit, wait_for, _ENTER_GETEVENTS if wait_for else 0, None, 0)
    if taken < 0:
        raise _failure()
    return taken


def supports(ring: int, operation: int) -> bool:
    """Whether the kernel knows an operation. Raises OSError where it cannot be asked (before Linux 5.6)."""
    probe = (ctypes.c_uint8 * (_PROBE_HEAD + _PROBED * _PROBE_ENTRY))()
    _call(_REGISTER, ring, _REGISTER_PROBE, ctypes.byref(probe), _PROBED)
    return bool(probe[_PROBE_HEAD + operation * _PROBE_ENTRY + 2] & _OPERATION_SUPPORTED)
