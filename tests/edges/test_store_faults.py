"""The store when the process is killed, the disk is full or fails, or the files are not what they were."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from heliosd.errors import StoreDamaged, StoreFull
from heliosd.raft.messages import Entry, Snapshot
from heliosd.raft.storage import HardState, LogSuffix, SnapshotSaved
from heliosd.store.changes import Change, RecordAdded, Saved, ValueSet
from heliosd.store.store import Store

# kill -9 during a stream of saves

STREAM_OF_SAVES = """
import os, sys
from pathlib import Path
import trio
from heliosd.raft.storage import HardState, LogSuffix
from heliosd.store.changes import RecordAdded, ValueSet
from heliosd.raft.messages import Entry
from heliosd.store.store import Store

async def stream(store, task, last):
    name = f"task-{task}"
    while True:
        last += 1
        entry = Entry(last, 1, "command", b"%d" % last + bytes(task * 3000))
        await store.save([
            HardState(name, last, name),
            LogSuffix(name, (entry,)),
            RecordAdded(name, last, b"%d" % last, 1),
            ValueSet(name, b"%d" % last),
        ])
        os.write(1, b"%d %d\\n" % (task, last))

async def main():
    store = Store.open(Path(sys.argv[1]))
    members = store.load().members
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for task in range(4):
            member = members.get(f"task-{task}")
            nursery.start_soon(stream, store, task, len(member.log) if member else 0)

trio.run(main)
"""


def test_what_was_answered_survives_a_kill_and_nothing_is_torn(tmp_path: Path) -> None:
    rng = random.Random(9)
    answered = dict.fromkeys(range(4), 0)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", STREAM_OF_SAVES, str(tmp_path)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(rng.randrange(20, 200))]
            child.kill()
            lines += child.stdout.read().splitlines(keepends=True)  # answered, too, before it died
            for line in lines:
                if line.endswith(b"\n"):
                    task, number = map(int, line.split())
                    answered[task] = number
        assert child.returncode == -signal.SIGKILL
        with closing(Store.open(tmp_path)) as store:
            saved = store.load()
        assert all(answered.values())
        for task, number in answered.items():
            name = f"task-{task}"
            member = saved.members[name]
            assert member.term >= number
            body = b"%d" % member.term
            assert [entry.index for entry in member.log] == list(range(1, member.term + 1))
            assert (saved.values[name], saved.records[name]) == (body, (body,))


# A disk that is full, and one that fails


@dataclass
class Disk:
    path: Path
    fill: Callable[[Store], None]
    free: Callable[[Store], None]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A small tmpfs where mounting is allowed, else a limit inside SQLite; both end in a real SQLITE_FULL."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        ballast = tmp_path / "ballast"

        def fill(_: Store) -> None:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

        try:
            yield Disk(tmp_path, fill, lambda _: ballast.unlink())
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)
    else:
        connections: list[sqlite3.Connection] = []
        connect = sqlite3.connect

        def recorded(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connections.append(connect(*arguments, **options))
            return connections[-1]

        def limit(pages: int) -> None:
            connections[-1].execute(f"PRAGMA max_page_count = {pages}")

        monkeypatch.setattr(sqlite3, "connect", recorded)
        yield Disk(tmp_path, lambda _: limit(1), lambda _: limit(2**30))


async def test_a_full_disk_refuses_the_write_and_the_store_recovers_by_itself(disk: Disk) -> None:
    large = bytes(100_000)
    with closing(Store.open(disk.path)) as store:
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await store.save([ValueSet("before", b"1")])
            disk.fill(store)
            for _ in range(3):
                with pytest.raises(StoreFull, match="full"):
                    await store.save([ValueSet("small", b"1"), ValueSet("large", large)])
            disk.free(store)
            await store.save([ValueSet("after", large)])
            nursery.cancel_scope.cancel()
        assert store.load().values == {"before": b"1", "after": large}
    with closing(Store.open(disk.path)) as store:
        assert store.load().values == {"before": b"1", "after": large}


@contextmanager
def writes_fail_beyond(file_bytes: int) -> Iterator[None]:
    """Every file of this process: a write at or past this offset fails, which SQLite calls an I/O error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_an_io_error_refuses_the_write_and_the_store_recovers_by_itself(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await store.save([ValueSet("before", b"1")])
            wal_bytes = (tmp_path / "heliosd.db-wal").stat().st_size
            with writes_fail_beyond(wal_bytes + 5000), pytest.raises(StoreFull, match="I/O"):
                await store.save([ValueSet("torn", b"1"), ValueSet("large", bytes(100_000))])
            await store.save([ValueSet("after", b"2")])
            nursery.cancel_scope.cancel()
        shutil.copytree(tmp_path, tmp_path / "as after a kill", ignore=shutil.ignore_patterns("as*"))
    for data_dir in (tmp_path, tmp_path / "as after a kill"):
        with closing(Store.open(data_dir)) as store:
            assert store.load().values == {"before": b"1", "after": b"2"}


# Files that are not what they were

CONTENT: list[list[Change]] = [
    [HardState("n1", 7, "n2"), HardState("n2", 7, "n2")],
    [LogSuffix("n1", tuple(Entry(index, 7, "command", b"%04d" % index * 8) for index in range(1, 200)))],
    [SnapshotSaved("n1", Snapshot(50, 7, {"n1": "a:1", "n2": "a:2"}, bytes(range(256)) * 40))],
    [RecordAdded("uptime_event", key, b'{"at":%d}' % key, 100) for key in range(20)],
    [ValueSet("totals", b'{"sessions":3}')],
    [HardState("n1", 8, "")],
    [ValueSet("last", b"1")],
]


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, Saved]:
    """A store that was closed, and what is in it."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with closing(Store.open(data_dir)) as store:
        trio.run(save_all, store)
        saved = store.load()
    return data_dir, saved


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, Saved]:
    """A store whose daemon was killed: everything stands in the write-ahead log still."""
    running, data_dir = tmp_path / "running", tmp_path / "data"
    running.mkdir()
    with closing(Store.open(running)) as store:
        trio.run(save_all, store)
        shutil.copytree(running, data_dir)
        return data_dir, store.load()


async def save_all(store: Store) -> None:
    for changes in CONTENT:
        await store.save(changes)


def contents(data_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data_dir.iterdir()}


def restore(data_dir: Path, intact: dict[str, bytes]) -> None:
    for path in data_dir.iterdir():
        path.unlink()
    for name, content in intact.items():
        (data_dir / name).write_bytes(content)


def assert_refused(data_dir: Path, match: str = "damaged") -> None:
    before = contents(data_dir)
    with pytest.raises(StoreDamaged, match=match) as refusal:
        Store.open(data_dir)
    assert "Nothing was changed" in str(refusal.value)
    assert str(data_dir) in str(refusal.value)
    assert contents(data_dir) == before | {"heliosd.lock": b"%d\n" % os.getpid()}


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.6, 0.8])
def test_a_truncated_database_is_refused(filled: tuple[Path, Saved], share: float) -> None:
    data_dir, _ = filled
    database = data_dir / "heliosd.db"
    os.truncate(database, int(database.stat().st_size * share))
    assert_refused(data_dir)


def test_a_zeroed_database_is_refused(filled: tuple[Path, Saved]) -> None:
    data_dir, _ = filled
    database = data_dir / "heliosd.db"
    database.write_bytes(bytes(database.stat().st_size))
    assert_refused(data_dir)


def test_a_database_with_a_zeroed_page_is_refused(filled: tuple[Path, Saved]) -> None:
    data_dir, _ = filled
    database = data_dir / "heliosd.db"
    intact = database.read_bytes()
    for start in range(0, len(intact), 4096):
        if not any(intact[start : start + 4096]):
            continue
        database.write_bytes(intact[:start] + bytes(4096) + intact[start + 4096 :])
        assert_refused(data_dir)


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "heliosd.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE theirs (a)")
    assert_refused(tmp_path, "not a database of heliosd")


def test_a_database_of_a_newer_version_is_refused_and_the_message_says_so(filled: tuple[Path, Saved]) -> None:
    data_dir, _ = filled
    with closing(sqlite3.connect(data_dir / "heliosd.db")) as database:
        database.execute("PRAGMA user_version = 99")
    assert_refused(data_dir, "newer heliosd")


def test_a_database_with_other_tables_is_refused(filled: tuple[Path, Saved]) -> None:
    data_dir, _ = filled
    with closing(sqlite3.connect(data_dir / "heliosd.db")) as database:
        database.execute("DROP TABLE revoked")
    assert_refused(data_dir)


def test_a_flipped_bit_is_refused_or_harmless_but_never_believed(filled: tuple[Path, Saved]) -> None:
    assert flip_bits(*filled, "heliosd.db", 400) > 100


def test_a_flipped_bit_in_the_log_is_refused_before_it_undoes_an_answered_write(
    killed: tuple[Path, Saved],
) -> None:
    data_dir, _ = killed
    # The last transaction wrote one page; bad, it would be indistinguishable from one that a crash tore.
    last_frame = (data_dir / "heliosd.db-wal").stat().st_size - 4096 - 24
    assert flip_bits(*killed, "heliosd.db-wal", 150, last_frame) > 140


def flip_bits(data_dir: Path, saved: Saved, name: str, times: int, end: int | None = None) -> int:
    """Flips one bit at a time; says how often the store was refused. What it did not refuse, it read right."""
    rng = random.Random(16)
    victim = data_dir / name
    intact = contents(data_dir)
    refused = 0
    for number in range(times):
        position = number if number < 100 else rng.randrange(end or len(intact[name]))
        damaged = bytearray(intact[name])
        damaged[position] ^= 1 << rng.randrange(8)
        restore(data_dir, intact)
        victim.write_bytes(damaged)
        try:
            with closing(Store.open(data_dir)) as store:
                assert store.load() == saved, f"byte {position}"
        except StoreDamaged:
            refused += 1
            assert victim.read_bytes() == damaged, f"byte {position}"
    return refused


def test_a_zeroed_log_is_refused(killed: tuple[Path, Saved]) -> None:
    data_dir, _ = killed
    wal = data_dir / "heliosd.db-wal"
    wal.write_bytes(bytes(wal.stat().st_size))
    assert_refused(data_dir)


def test_a_log_without_its_database_is_refused(killed: tuple[Path, Saved]) -> None:
    data_dir, _ = killed
    (data_dir / "heliosd.db").unlink()
    assert_refused(data_dir, "it is gone")


def test_a_transaction_that_a_crash_tore_is_forgotten_whole(killed: tuple[Path, Saved]) -> None:
    data_dir, saved = killed
    wal = data_dir / "heliosd.db-wal"
    os.truncate(wal, wal.stat().st_size - 1000)
    with closing(Store.open(data_dir)) as store:
        assert store.load().values.keys() == saved.values.keys() - {"last"}


def test_what_a_failed_commit_left_in_the_log_is_not_taken_for_damage(killed: tuple[Path, Saved]) -> None:
    data_dir, saved = killed
    wal = data_dir / "heliosd.db-wal"
    frame = wal.read_bytes()[-4096 - 24 :]
    # A whole commit frame whose checksum does not continue the log, as stands there when its fsync failed and a
    # shorter transaction was written over its beginning.
    page, _, *rest = struct.unpack_from(">6I", frame)
    with wal.open("ab") as file:
        for size in (0, 9, 0, 9):
            file.write(struct.pack(">6I", page, size, *rest) + frame[24:])
    with closing(Store.open(data_dir)) as store:
        assert store.load() == saved


def test_a_creation_that_was_interrupted_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "heliosd.db.new").write_bytes(b"SQLite format 3\0 and no more")
    (tmp_path / "heliosd.db.new-journal").write_bytes(b"half a journal")
    with closing(Store.open(tmp_path)) as store:
        assert store.load() == Saved()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heliosd.db", "heliosd.lock"]
