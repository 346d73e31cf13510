"""Vouching for the event log on disk, by a file beside the database.

A disk that takes no more bytes still lets a file be removed. So when events could not be stored, the file that
names their epoch goes, and no later start takes up that numbering, though the database could not be told.
"""

from __future__ import annotations

import os
from pathlib import Path

from heliosd.errors import StoreFull

NAME = "events.epoch"


class EpochFile:
    """The file `events.epoch` in the data directory; implements `hub.event_log.Vouching`."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / NAME

    def complete_epoch(self) -> str:
        """The epoch that the file names; "" where there is none that can be read."""
        try:
            return self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def mark_complete(self, epoch: str) -> None:
        """Name `epoch`, durably. Raises `StoreFull`."""
        new = self._path.with_suffix(".new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(descriptor, epoch.encode("ascii") + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            new.rename(self._path)
            self._sync_directory()
        except OSError as error:
            raise StoreFull(f"cannot write {self._path}: {error.strerror}") from error

    def mark_incomplete(self) -> None:
        """Remove the file, durably. Raises `StoreFull`."""
        try:
            self._path.unlink(missing_ok=True)
            self._sync_directory()
        except OSError as error:
            raise StoreFull(f"cannot remove {self._path}: {error.strerror}") from error

    def _sync_directory(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
