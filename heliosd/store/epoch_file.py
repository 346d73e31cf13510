"""Whether the event log on disk is complete: a file beside the database names the epoch that is.

A full disk still lets a file be removed. So when events cannot be stored, the file is removed, and no later start
continues that numbering, although the database could not be written.
"""

from __future__ import annotations

from pathlib import Path

import trio

from heliosd import atomic_file
from heliosd.errors import StoreFull

NAME = "events.epoch"


class EpochFile:
    """The file `events.epoch` in the data directory. Writing waits in a thread: a failing disk may take long."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / NAME

    def complete_epoch(self) -> str:
        """The epoch that the file names; "" where there is none that can be read."""
        try:
            return self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    async def mark_complete(self, epoch: str) -> None:
        """Name `epoch`, durably. Raises `StoreFull`."""
        try:
            await trio.to_thread.run_sync(atomic_file.write, self._path, epoch.encode("ascii") + b"\n")
        except OSError as error:
            raise StoreFull(f"cannot write {self._path}: {error.strerror}") from error

    async def mark_incomplete(self) -> None:
        """Remove the file, durably. Raises `StoreFull`."""
        try:
            await trio.to_thread.run_sync(atomic_file.remove, self._path)
        except OSError as error:
            raise StoreFull(f"cannot remove {self._path}: {error.strerror}") from error
