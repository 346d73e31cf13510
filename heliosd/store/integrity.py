"""Opening a data directory: the lock, the check of an existing database, and a new one.

A database is checked through a read-only connection before anything may write to it. A damaged one stays as it is,
to be compared with a backup or repaired.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from heliosd import atomic_file
from heliosd.errors import StoreBusy, StoreDamaged, StoreError, StoreFull, store_error

from . import tables
from .tables import APPLICATION_ID, MIGRATIONS, expected_schema, migrate, schema
from .wal_check import lost_commits

LOCK = "heliosd.lock"
"""Holds the id of the process that has it locked."""
HEADER_BYTES = 100
UNFINISHED_RESTORE = "restore.unfinished"
"""This file is in the data directory while `backup.restore` replaces the database."""
Read = TypeVar("Read")
_NOT_DAMAGE = ("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_FULL")
_DISK_TROUBLE = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")


def take_lock(data_dir: Path) -> int:
    """Locks the directory for as long as the returned descriptor is open. Raises `StoreBusy`, `StoreFull` and
    `StoreError`."""
    path = data_dir / LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise store_error(f"cannot use the data directory {data_dir}", error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StoreBusy(
            f"another heliosd is running on {data_dir}. Stop it, or give this one a node.data_dir of its own"
        ) from error
    except OSError as error:
        os.close(lock)
        raise store_error(f"cannot lock {path}", error) from error
    with suppress(OSError):  # on a full disk it stays empty
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


def lock_holder(data_dir: Path) -> tuple[bool, int | None]:
    """Whether a heliosd has the directory locked, and its process id: None if it is not known for sure."""
    try:
        with (data_dir / LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return False, None
            text, mine = lock.read(20).strip(), os.fstat(lock.fileno())
    except OSError:
        return False, None
    # The id may be one of another namespace: whether that process has this file open decides.
    with suppress(OSError):
        for descriptor in Path(f"/proc/{int(text or b'0')}/fd").iterdir():
            with suppress(OSError):
                found = descriptor.stat()
                if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
                    return True, int(text)
    return True, None


def prepare(path: Path) -> None:
    """Makes the database if there is none, else checks it. Call it with the directory locked.

    Raises `StoreDamaged` (nothing was changed), `StoreFull` (the disk does not take it now) or `StoreError` (it
    cannot be accessed).
    """
    try:
        if (unfinished := path.with_name(UNFINISHED_RESTORE)).exists():
            raise StoreDamaged(f"a restore was interrupted ({unfinished}). Run `heliosd restore` again")
        if path.exists():
            check(path)
            path.chmod(0o600)
        elif _wal(path).exists():
            raise _damaged(path, f"it is gone, but its log {_wal(path).name} is there")
        else:
            _create(path)
    except OSError as error:
        raise store_error(f"cannot use {path}", error) from error


def sqlite_error(message: str, cause: Exception, directory: Path) -> StoreError:
    """`StoreFull` if the disk is full, read-only or failing, otherwise `StoreError`."""
    name = getattr(cause, "sqlite_errorname", "")
    if name.startswith("SQLITE_CANTOPEN"):
        # SQLite does not say why it could not make a file. A disk has also no room when its inodes are used up.
        probe = directory / ".heliosd.probe"
        try:
            probe.touch(mode=0o600)
            probe.unlink()
        except OSError as error:
            return store_error(f"{message}: {cause}", error)
    kind = StoreFull if name.startswith(_DISK_TROUBLE) else StoreError
    return kind(f"{message}: {cause}")


def _create(path: Path) -> None:
    # Under another name until it is complete: a crash in between must not leave an empty file that looks damaged.
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    unfinished.with_name(unfinished.name + "-journal").unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        database = sqlite3.connect(unfinished, isolation_level=None)
        try:
            migrate(database)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute("PRAGMA journal_mode = WAL")
        finally:
            database.close()
    except sqlite3.Error as error:
        raise sqlite_error(f"cannot make {path}", error, path.parent) from error
    atomic_file.move(unfinished, path)


def check(path: Path) -> None:
    """Raises what `read_checked` raises. One row is in memory at a time."""
    read_checked(path, tables.check)


def read_checked(path: Path, read: Callable[[sqlite3.Connection], Read]) -> Read:
    """What `read`, of `tables.py`, finds in a database that no daemon has open. Nothing is changed.

    Raises `StoreDamaged`, also for one of a newer version, `StoreFull`, `StoreError` and OSError.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if not header:
        raise _damaged(path, "it is empty")
    # Bytes 18 and 19 are the file format's write and read version; 2 is the write-ahead log.
    if len(header) < HEADER_BYTES or header[:16] != b"SQLite format 3\0" or header[18:20] != b"\2\2":
        raise _damaged(path, "it is not a database of heliosd")
    with suppress(FileNotFoundError), _wal(path).open("rb") as wal:
        if lost_commits(wal):
            raise _damaged(path, f"its log {_wal(path).name} is damaged in its middle")
    try:
        # With `unix-none` and an exclusive lock SQLite makes no shared-memory file. The directory's lock keeps
        # other processes out.
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&vfs=unix-none", uri=True, isolation_level=None
        )
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            return _read_checked(path, database, read)
        finally:
            database.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if getattr(error, "sqlite_errorname", "").startswith(_NOT_DAMAGE):
            raise sqlite_error(f"cannot read {path}", error, path.parent) from error
        raise _damaged(path, str(error)) from error


def _read_checked(
    path: Path, database: sqlite3.Connection, read: Callable[[sqlite3.Connection], Read]
) -> Read:
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID or version < 1:
        raise _damaged(path, "it is not a database of heliosd")
    if version > len(MIGRATIONS):
        raise StoreDamaged(
            f"{path} was written by a newer heliosd (layout {version}; this one knows up to {len(MIGRATIONS)}). "
            f"Nothing was changed. Run that version, or set another node.data_dir"
        )
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, str(verdict))
    if schema(database) != expected_schema(version):
        raise _damaged(path, "its tables are not those of heliosd")
    try:
        return read(database)
    except StoreDamaged as error:
        raise _damaged(path, str(error)) from error


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _damaged(path: Path, fact: str) -> StoreDamaged:
    return StoreDamaged(
        f"{path} is damaged: {fact}. Nothing was changed. Put back a backup, or move {path.name} and "
        f"{_wal(path).name} out of {path.parent} to start with an empty state"
    )
