"""Where the data of a test can be in memory."""

from __future__ import annotations

import os
from pathlib import Path

MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 4 << 30
"""A whole run leaves some 300 MB there until it ends."""


def memory_folder() -> Path | None:
    """A folder in memory in which programs may run; None: there is none, or too little room.

    A disk that other work keeps busy may take seconds for one fsync. Then a daemon answers 504, as it should, and
    etcd elects another leader, and a test that asks for something else fails.
    """
    if not os.access(MEMORY, os.W_OK):
        return None
    room = os.statvfs(MEMORY)
    runs_programs = not room.f_flag & os.ST_NOEXEC
    return MEMORY if runs_programs and room.f_bavail * room.f_frsize >= ENOUGH_BYTES else None
