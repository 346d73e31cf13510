"""A backup of a data directory while heliosd runs there, and its way back.

A backup is a tar file: the database, the small files that belong to it, and `backup.json`.

1. The daemon locks others out of its database, so the files are copied without SQLite. That is consistent if the
   write-ahead log is copied after the database and was not begun anew meanwhile: whatever a checkpoint moves into
   the database then stands in the copied log too, and opening the copy moves it once more.
2. A backup does not name an epoch as complete. After a restore the numbers behind the backup are given again, for
   other events, so the next start begins a new epoch, and no cursor from before continues.
3. What was revoked stays revoked: the revocations of the replaced database are kept.
4. The replaced database is what the last start used, also where a restore was interrupted and is run again.
"""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from gzip import BadGzipFile
from hashlib import file_digest, sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from heliosd import __version__, atomic_file
from heliosd.errors import BAD_JSON, StoreDamaged, StoreError, store_error

from .changes import TokenRevoked
from .epoch_file import NAME as EPOCH_FILE
from .integrity import LOCK, UNFINISHED_RESTORE, check, read_checked, sqlite_error, take_lock
from .tables import MIGRATIONS, apply, migrate, read_revoked

DATABASE = "heliosd.db"
MANIFEST = "backup.json"
FORMAT = 1
REPLACED = ".before-restore"
"""The suffix of the database that a restore replaced."""
ATTEMPTS = 50
RETRY_SECONDS = 0.05
WAL_HEADER_BYTES = 32
MAX_SMALL_BYTES = 1024 * 1024
"""Of a file in a backup that is not the database."""
GZIP_MAGIC = b"\x1f\x8b"
BAD_ARCHIVE = (tarfile.TarError, BadGzipFile, zlib.error, EOFError, KeyError, *BAD_JSON)
"""`BadGzipFile` is an `OSError`, though the system has refused nothing."""


class BackupManifest(msgspec.Struct, frozen=True):
    """What `backup.json` says."""

    format: int
    heliosd: str
    """The version that made the backup."""
    layout: int
    """Of the database."""
    created_at: datetime
    sha256: dict[str, str] = {}
    """Of each other file, in hexadecimal. Empty in a backup by an older heliosd."""


def write_backup(data_dir: Path, target: Path, also: Sequence[str]) -> BackupManifest:
    """Write a backup of `data_dir` to the file `target` (0600), with those of its files `also` that are there.

    A heliosd may run there. A part of the database is in memory at a time. `target` has the whole backup or is as
    it was before. Raises `StoreError`, and `StoreDamaged` if the database is damaged.
    """
    if not (data_dir / DATABASE).exists():
        raise StoreError(f"there is nothing to back up: {data_dir / DATABASE} does not exist")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            copy, draft = Path(scratch) / DATABASE, Path(scratch) / "backup.tar"
            _copy_checked(data_dir / DATABASE, copy)
            layout = _merge_log(copy)
            small = _read_small(data_dir, also)
            digests = {DATABASE: _digest(copy)} | _digests(small)
            manifest = BackupManifest(FORMAT, __version__, layout, datetime.now(UTC), digests)
            with _synced(draft) as file, tarfile.open(fileobj=file, mode="w") as archive:
                _add_small(archive, MANIFEST, msgspec.json.encode(manifest))
                with copy.open("rb") as database:
                    _add(archive, DATABASE, copy.stat().st_size, database)
                for name, content in small.items():
                    _add_small(archive, name, content)
            atomic_file.move(draft, target)
    except OSError as error:
        raise store_error(f"cannot back up {data_dir} to {target}", error) from error
    return manifest


def restore(data_dir: Path, source: Path, also: Sequence[str], warn: Callable[[str], None]) -> BackupManifest:
    """Replace the database in `data_dir` by that of the backup `source`; add those files `also` that are missing.
    `warn` is called if tokens that were revoked since the backup are not known any more.

    No heliosd may run there. The replaced database stays beside it, as `heliosd.db.before-restore`. If this is
    interrupted, no start uses what is there until it is run again. Raises `StoreBusy`, `StoreDamaged` if the backup
    is none or is of a newer version (nothing was changed), `StoreError`.
    """
    lock = take_lock(data_dir)
    try:
        for left_over in data_dir.glob(".restore.*"):
            shutil.rmtree(left_over)
        with tempfile.TemporaryDirectory(prefix=".restore.", dir=data_dir) as scratch:
            manifest, files = _unpack(source, Path(scratch))
            draft = Path(scratch) / DATABASE
            check(draft)
            replaced = data_dir / f"{DATABASE}{REPLACED}"
            if (data_dir / UNFINISHED_RESTORE).exists() and replaced.exists():
                _set_aside(data_dir)
                _keep_revocations(replaced, draft, warn)
            else:
                _keep_revocations(data_dir / DATABASE, draft, warn)
                for earlier in (replaced, _log_of(replaced)):
                    earlier.unlink(missing_ok=True)
                atomic_file.write(data_dir / UNFINISHED_RESTORE, b"")
                atomic_file.remove(data_dir / EPOCH_FILE)
                _set_aside(data_dir)
            atomic_file.move(draft, data_dir / DATABASE)
            for name in also:
                if name in files and not (data_dir / name).exists():
                    atomic_file.write(data_dir / name, files[name])
            _give_to_owner(data_dir, (DATABASE, LOCK, *also))
            atomic_file.remove(data_dir / UNFINISHED_RESTORE)
    except OSError as error:
        raise store_error(f"cannot restore into {data_dir}", error) from error
    finally:
        os.close(lock)
    return manifest


def _set_aside(data_dir: Path) -> None:
    """Give the database, then its log, the names of what is replaced, unless those are taken."""
    database, replaced = data_dir / DATABASE, data_dir / f"{DATABASE}{REPLACED}"
    for old, kept in ((database, replaced), (_log_of(database), _log_of(replaced))):
        if not kept.exists():
            with suppress(FileNotFoundError):
                old.rename(kept)


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _copy_checked(database: Path, copy: Path) -> None:
    """A copy that a start would take. While a daemon writes some attempts fail. Raises `StoreDamaged` if one fails
    although nothing was written."""
    wal, copied_wal = _log_of(database), _log_of(copy)
    for _ in range(ATTEMPTS):
        log, written = _log_header(wal), _last_write(database, wal)
        shutil.copyfile(database, copy)
        copied_wal.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.copyfile(wal, copied_wal)
        unchanged = _last_write(database, wal) == written
        if unchanged or (log and _log_header(wal) == log):
            try:
                check(copy)
            except StoreDamaged as error:  # or a transaction was rolled back, and another written over it
                if unchanged:
                    raise StoreDamaged(f"{database} cannot be backed up: {error}") from error
            else:
                return
        time.sleep(RETRY_SECONDS)  # the daemon is another process: nothing reports the end of its transaction
    raise StoreError(f"{database} was written to without a pause; try again")


def _log_header(wal: Path) -> bytes:
    """Another one whenever the log is begun anew; empty if there is none."""
    try:
        with wal.open("rb") as file:
            return file.read(WAL_HEADER_BYTES)
    except FileNotFoundError:
        return b""


def _last_write(*files: Path) -> list[tuple[int, int, int] | None]:
    """Another value once one of the files was written, made or removed."""
    return [_stamp(file) for file in files]


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:  # the log goes when the last one who has the database open closes it
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _merge_log(database: Path) -> int:
    """Move the log into the copied database; its layout."""
    try:
        connection = sqlite3.connect(database, isolation_level=None)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (layout,) = connection.execute("PRAGMA user_version").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise sqlite_error(f"cannot copy {database}", error, database.parent) from error
    return int(layout)


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A new file (0600) to write to; it is on disk when the block has ended."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _read_small(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    found = {}
    for name in names:
        with suppress(FileNotFoundError):
            found[name] = (folder / name).read_bytes()
    return found


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: sha256(content).hexdigest() for name, content in files.items()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _add_small(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    _add(archive, name, len(content), io.BytesIO(content))


def _add(archive: tarfile.TarFile, name: str, size: int, content: BinaryIO) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    archive.addfile(member, content)


def _unpack(source: Path, into: Path) -> tuple[BackupManifest, dict[str, bytes]]:
    """Write the database to `into`; the manifest and the other files. Raises `StoreDamaged` if `source` is no
    backup, or if a file in it is not as it was."""
    files: dict[str, bytes] = {}
    try:
        with source.open("rb") as file:
            compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        with tarfile.open(source, "r:gz" if compressed else "r:") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                if member.name == DATABASE:
                    with _synced(into / DATABASE) as database:
                        shutil.copyfileobj(content, database)
                else:
                    files[member.name] = content.read(MAX_SMALL_BYTES)
        manifest = msgspec.json.decode(files.pop(MANIFEST), type=BackupManifest)
    except BAD_ARCHIVE as error:
        raise StoreDamaged(f"{source} is no whole backup of heliosd: {error}") from error
    except OSError as error:
        raise store_error(f"cannot read the backup {source}", error) from error
    if not (into / DATABASE).exists():
        raise StoreDamaged(f"{source} is no whole backup of heliosd: {DATABASE} is not in it")
    if manifest.format > FORMAT or manifest.layout > len(MIGRATIONS):
        raise StoreDamaged(f"{source} was made by a newer heliosd ({manifest.heliosd}). Nothing was changed")
    found = {DATABASE: _digest(into / DATABASE)} | _digests(files)
    if manifest.sha256 and found != manifest.sha256:
        names = ", ".join(sorted({name for name, _ in found.items() ^ manifest.sha256.items()}))
        raise StoreDamaged(f"{source} is no whole backup of heliosd: not what was backed up: {names}")
    return manifest, files


def _keep_revocations(old: Path, new: Path, warn: Callable[[str], None]) -> None:
    """Revoke in `new` what is revoked in `old`, if that can be read."""
    if not old.exists():
        return
    try:
        revoked = read_checked(old, read_revoked)
    except (StoreError, OSError) as error:
        warn(f"tokens that were revoked since the backup hold again: what was there is not readable: {error}")
        return
    known = read_checked(new, read_revoked)
    try:
        database = sqlite3.connect(new, isolation_level=None)
        try:
            migrate(database)
            database.execute("BEGIN IMMEDIATE")
            # The one without a `jti` first, which removes those that end by then.
            for jti, expires_at in sorted(revoked.items()):
                apply(database, TokenRevoked(jti, max(expires_at, known.get(jti, 0.0))))
            database.execute("COMMIT")
            # Only the main file is moved into place.
            busy, *_ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert not busy, "nobody else has it open"
        finally:
            database.close()
    except sqlite3.Error as error:
        raise sqlite_error(f"cannot write {new}", error, new.parent) from error


def _give_to_owner(data_dir: Path, names: Sequence[str]) -> None:
    """What root restores belongs to the daemon's user."""
    owner = data_dir.stat()
    if os.geteuid() == 0:
        for name in names:
            with suppress(FileNotFoundError):
                os.chown(data_dir / name, owner.st_uid, owner.st_gid)
