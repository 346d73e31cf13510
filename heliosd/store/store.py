"""The store: what must survive a kill -9, in one SQLite database with one writer.

    store = Store.open(data_dir)          before Trio runs; locks the directory
    saved = store.load()
    await nursery.start(store.run)        the writer: one transaction and one fsync for all calls that wait
    await store.save([...])               returns when the changes are on disk
    store.close()                         last of all

The database is in WAL mode with `synchronous = FULL`: a commit is an append and an fsync. Moving the log's pages
into the database (a checkpoint) causes the longest commits, so it waits until the store is idle, unless the log is
larger than `WAL_BYTES`.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from heliosd.errors import StoreBusy, StoreDamaged, StoreFull

from .changes import Change, Saved
from .integrity import prepare, sqlite_error, take_lock
from .tables import apply, migrate, read

GROUP = 50
"""At most so many calls of `save` share a transaction; further callers wait."""
QUIET_SECONDS = 0.2
"""After so long without a `save` a checkpoint is made."""
WAL_BYTES = 16 * 1024 * 1024
"""A larger log is checkpointed even under load."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _SaveRequest:
    changes: tuple[Change, ...]
    done: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None


class Store:
    """One open data directory. `save` works from `open` to `close`; while `run` runs, calls share transactions."""

    def __init__(self, database: sqlite3.Connection, wal: Path, lock: int) -> None:
        self._database = database
        self._wal = wal
        self._lock = lock
        self._limiter = trio.CapacityLimiter(1)
        self._queue, self._waiting = trio.open_memory_channel[_SaveRequest](GROUP)
        self._writer_runs = False
        self._checkpoint_failed = False

    @classmethod
    def open(cls, data_dir: Path) -> Store:
        """Opens or makes the store in an existing directory (files 0600). Blocks; call it before Trio.

        Raises `StoreBusy` if another heliosd holds the directory, `StoreDamaged` if the database is damaged or was
        written by a newer version (nothing was changed), `StoreFull` if the disk does not take it now, `StoreError`
        if it cannot be accessed.
        """
        path = data_dir / "heliosd.db"
        lock = take_lock(data_dir)
        try:
            prepare(path)
            return cls(_connect(path), path.with_name(path.name + "-wal"), lock)
        except BaseException:
            os.close(lock)
            raise

    def load(self) -> Saved:
        """All that is stored."""
        return read(self._database)

    async def save(self, changes: Sequence[Change]) -> None:
        """Stores the changes, all or none, in their order; returns once they are on disk.

        Raises `StoreFull` if they are not stored, ValueError for a log with a hole. After a cancellation either all
        changes of the call are stored or none, and the caller does not know which.
        """
        request = _SaveRequest(tuple(changes))
        if self._writer_runs:
            await self._queue.send(request)
            await request.done.wait()
        else:
            await self._commit([request])
        if request.error is not None:
            raise request.error

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The writer, until it is cancelled; calls that wait at that moment are still written."""
        self._writer_runs = True
        task_status.started()
        written = False
        try:
            while True:
                group: list[_SaveRequest] = []
                with trio.move_on_after(QUIET_SECONDS if written else math.inf):
                    group.append(await self._waiting.receive())
                if group:
                    self._gather(group)
                    await self._commit(group)
                    written = True
                else:
                    await self._checkpoint()
                    written = False
        finally:
            self._writer_runs = False
            while group := self._gather([]):
                await self._commit(group)

    def close(self) -> None:
        """Moves the log into the database and unlocks the directory. Call it after `run` has ended."""
        self._database.close()
        os.close(self._lock)

    def _gather(self, group: list[_SaveRequest]) -> list[_SaveRequest]:
        with suppress(trio.WouldBlock):
            while len(group) < GROUP:
                group.append(self._waiting.receive_nowait())
        return group

    async def _commit(self, group: list[_SaveRequest]) -> None:
        # A thread inside SQLite cannot be interrupted, so a deadline for this shield could not be kept. The shield
        # is for the moment before: a group that was taken is written, and its callers are woken.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._write, group, limiter=self._limiter)
            for request in group:
                request.done.set()
            with suppress(OSError):  # there is none yet, or the disk fails, which the next transaction says
                # The first commit after a checkpoint truncates the file to journal_size_limit, so it is larger only
                # while that much has not been checkpointed.
                if self._wal.stat().st_size > WAL_BYTES:
                    await self._checkpoint()

    def _write(self, group: list[_SaveRequest]) -> None:
        try:
            self._transact(group)
        except Exception as error:
            if len(group) == 1:
                group[0].error = _as_store_error(error)
            else:
                for request in group:
                    self._write([request])

    def _transact(self, group: list[_SaveRequest]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for request in group:
                for change in request.changes:
                    apply(self._database, change)
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # SQLite rolls back by itself on some errors
                self._database.execute("ROLLBACK")
            raise

    async def _checkpoint(self) -> None:
        try:
            await trio.to_thread.run_sync(
                self._database.execute, "PRAGMA wal_checkpoint(PASSIVE)", limiter=self._limiter
            )
        except sqlite3.Error as error:
            if not self._checkpoint_failed:
                log.warning("checkpoint of the store failed, the log keeps growing: %s", error)
            self._checkpoint_failed = True
        else:
            self._checkpoint_failed = False


def _connect(path: Path) -> sqlite3.Connection:
    """The one connection that writes. `unix-excl` keeps the log's index in memory instead of a mapped file (on a
    full disk that is a SIGBUS), and locks other processes out."""
    try:
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw&vfs=unix-excl",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=1.0,
        )
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA wal_autocheckpoint = 0")
            database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            # Debian's SQLite overwrites what is deleted with zeros, which only makes each compaction larger.
            database.execute("PRAGMA secure_delete = OFF")
            migrate(database)
        except BaseException:
            database.close()
            raise
    except sqlite3.Error as error:
        if _code(error) == "SQLITE_BUSY":
            raise StoreBusy(f"another program has {path} open") from error
        raise sqlite_error(f"cannot open {path}", error, path.parent) from error
    return database


def _as_store_error(error: Exception) -> Exception:
    """The error that `save` raises; one that is a bug stays as it is."""
    code = _code(error)
    if code.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
        return StoreFull(f"not written: {error}")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreDamaged(f"the database cannot be read: {error}")
    return error


def _code(error: Exception) -> str:
    return str(getattr(error, "sqlite_errorname", ""))
