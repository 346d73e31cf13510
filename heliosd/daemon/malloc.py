"""Where glibc takes large blocks from, so that the memory of a flood goes back to the system when it ends."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 128 * 1024


def return_large_blocks() -> None:
    """Gives blocks of 128 KiB and more a mapping of their own, which ends with them. Does nothing without glibc.

    That is glibc's own limit at first, but it raises it up to 32 MiB when such a block is freed. Then large
    messages and the 19 MiB of each password hash lie in heaps whose ends small objects keep from being returned.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
