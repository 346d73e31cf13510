"""Durable files: a reader finds the whole content or none, also after a power failure."""

from __future__ import annotations

import os
from pathlib import Path

MODE = 0o600


def write(path: Path, content: bytes, *, mode: int = MODE, replace: bool = True) -> None:
    """Write the file and return when it is on disk. What stood under the name before stays until then.

    With `replace=False` an existing file is left alone and FileExistsError is raised. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.rename(path)
        else:
            path.hardlink_to(draft)  # a link fails if the name is taken; a rename does not
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def move(draft: Path, path: Path) -> None:
    """Give a finished and synced file its name, and return when the name is on disk. Raises OSError."""
    draft.rename(path)
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove the file if it is there, and return when its name is gone from the disk. Raises OSError."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Return when the names in the directory are on disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
