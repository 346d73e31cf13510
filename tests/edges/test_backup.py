"""A backup while the store is written to, what a restore puts back, and what it refuses."""

from __future__ import annotations

import gzip
import sqlite3
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio

from heliosd.errors import StoreBusy, StoreDamaged, StoreError, StoreFull
from heliosd.raft.storage import HardState
from heliosd.store.backup import restore, write_backup
from heliosd.store.changes import (
    Change,
    EventsLogged,
    LoggedEvent,
    RecordAdded,
    Saved,
    TokenRevoked,
    ValueSet,
)
from heliosd.store.epoch_file import EpochFile
from heliosd.store.integrity import read_checked
from heliosd.store.store import Store
from heliosd.store.tables import MIGRATIONS, apply, migrate, read
from tests.support.small_disk import small_disk

STREAM = """
import os, sys
from pathlib import Path
import trio
from heliosd.raft.storage import HardState
from heliosd.store.changes import RecordAdded, ValueSet
from heliosd.store.store import QUIET_SECONDS, Store

async def main():
    store = Store.open(Path(sys.argv[1]))
    number = int(store.load().values.get("number", b"0"))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        while True:
            number += 1
            body = b"%d" % number
            await store.save([
                HardState("n", number, ""), RecordAdded("kind", number, body + bytes(20_000), 3),
                ValueSet("number", body),
            ])
            os.write(1, body + b"\\n")
            if number % 20 == 0:
                await trio.sleep(QUIET_SECONDS + 0.02)  # long enough for a checkpoint

trio.run(main)
"""


def saved_in(data_dir: Path) -> Saved:
    with closing(Store.open(data_dir)) as store:
        return store.load()


def store_with(data_dir: Path, changes: Sequence[Change]) -> Path:
    data_dir.mkdir(mode=0o700, exist_ok=True)
    with closing(Store.open(data_dir)) as store:
        trio.run(store.save, changes)
    return data_dir


def test_each_backup_during_writes_and_kills_is_a_state_that_was(tmp_path: Path) -> None:
    data_dir, restored = tmp_path / "data", tmp_path / "restored"
    for folder in (data_dir, restored):
        folder.mkdir(mode=0o700)
    for kill in range(2):
        with subprocess.Popen([sys.executable, "-c", STREAM, str(data_dir)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            answered = 0
            for taken in range(4):
                answered = int(child.stdout.readline())
                write_backup(data_dir, tmp_path / f"{taken}.tar", ())
                saved = restored_from(tmp_path / f"{taken}.tar", restored)
                number = int(saved.values["number"])
                assert number >= answered
                assert saved.members["n"].term == number
                assert [int(body.rstrip(b"\0")) for body in saved.records["kind"]] == [
                    number - back for back in (2, 1, 0) if number > back
                ]
            child.kill()
        write_backup(data_dir, tmp_path / "after.tar", ())
        assert restored_from(tmp_path / "after.tar", restored) == saved_in(data_dir), kill


def restored_from(backup: Path, data_dir: Path) -> Saved:
    restore(data_dir, backup, (), pytest.fail)
    return saved_in(data_dir)


def test_a_backup_is_readable_by_its_owner_alone_and_leaves_nothing_else(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", b"1")])
    (data_dir / "jwt_secret").write_text("s" * 64)
    before = {path.name for path in data_dir.iterdir()}
    write_backup(data_dir, tmp_path / "backup.tar", ("jwt_secret", "absent"))
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"data", "backup.tar"}
    assert {path.name for path in data_dir.iterdir()} == before
    with tarfile.open(tmp_path / "backup.tar") as archive:
        assert archive.getnames() == ["backup.json", "heliosd.db", "jwt_secret"]


def test_a_backup_beside_a_daemon_that_comes_and_goes_is_whole(tmp_path: Path) -> None:
    """Its log is made and removed meanwhile."""
    data_dir, over = store_with(tmp_path / "data", [ValueSet("value", b"1")]), threading.Event()

    def come_and_go() -> None:
        while not over.wait(0.01):
            store_with(data_dir, [ValueSet("value", b"1")])

    daemon = threading.Thread(target=come_and_go)
    daemon.start()
    try:
        for _ in range(40):
            write_backup(data_dir, tmp_path / "backup", ())
    finally:
        over.set()
        daemon.join()
    restored = tmp_path / "restored"
    restored.mkdir(mode=0o700)
    restore(restored, tmp_path / "backup", (), pytest.fail)
    assert saved_in(restored).values == {"value": b"1"}


def test_a_backup_holds_a_part_of_the_database_in_memory_at_a_time(tmp_path: Path) -> None:
    values = [ValueSet(f"value {number}", bytes(1_000_000)) for number in range(30)]
    data_dir = store_with(tmp_path / "data", values)
    tracemalloc.start()
    try:
        write_backup(data_dir, tmp_path / "backup", ())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "backup").stat().st_size > 30_000_000
    assert most < 10_000_000


def test_a_backup_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", bytes(100_000))])
    with small_disk(tmp_path / "disk") as disk:
        write_backup(data_dir, disk.path / "backup.tar", ())
        whole = (disk.path / "backup.tar").read_bytes()
        disk.fill()
        with pytest.raises(StoreFull, match="No space"):
            write_backup(data_dir, disk.path / "backup.tar", ())
        assert (disk.path / "backup.tar").read_bytes() == whole


def test_after_a_restore_no_epoch_goes_on(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", b"1")])
    trio.run(EpochFile(data_dir).mark_complete, "E1")
    write_backup(data_dir, tmp_path / "backup.tar", ())
    restore(data_dir, tmp_path / "backup.tar", (), pytest.fail)
    assert EpochFile(data_dir).complete_epoch() == ""


def test_what_was_revoked_since_the_backup_stays_revoked(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [TokenRevoked("old", 5e9), TokenRevoked("", 2e9)])
    write_backup(data_dir, tmp_path / "backup.tar", ())
    store_with(data_dir, [TokenRevoked("new", 6e9), TokenRevoked("", 3e9)])
    restore(data_dir, tmp_path / "backup.tar", (), pytest.fail)
    assert saved_in(data_dir).revoked == {"old": 5e9, "new": 6e9, "": 3e9}


def test_a_restore_over_a_damaged_database_says_that_revocations_are_gone(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", b"1"), TokenRevoked("old", 5e9)])
    write_backup(data_dir, tmp_path / "backup.tar", ())
    (data_dir / "heliosd.db").write_bytes(bytes(8192))
    said: list[str] = []
    restore(data_dir, tmp_path / "backup.tar", (), said.append)
    assert [text.partition(":")[0] for text in said] == [
        "tokens that were revoked since the backup hold again"
    ]
    assert saved_in(data_dir).revoked == {"old": 5e9}


def test_a_key_that_is_there_stays_and_one_that_is_missing_is_restored(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [])
    key = data_dir / "jwt_secret"
    key.write_text("old")
    write_backup(data_dir, tmp_path / "backup.tar", ("jwt_secret",))
    key.write_text("new")
    restore(data_dir, tmp_path / "backup.tar", ("jwt_secret",), pytest.fail)
    assert key.read_text() == "new"
    key.unlink()
    restore(data_dir, tmp_path / "backup.tar", ("jwt_secret",), pytest.fail)
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("old", 0o600)


def test_a_restore_beside_a_running_daemon_changes_nothing(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", b"1")])
    write_backup(data_dir, tmp_path / "backup.tar", ())
    with closing(Store.open(data_dir)) as store:
        trio.run(store.save, [ValueSet("a", b"2")])
        with pytest.raises(StoreBusy):
            restore(data_dir, tmp_path / "backup.tar", (), pytest.fail)
    assert saved_in(data_dir).values == {"a": b"2"}


def test_what_is_no_whole_backup_changes_nothing(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", b"1")])
    write_backup(data_dir, tmp_path / "backup.tar", ())
    whole = (tmp_path / "backup.tar").read_bytes()
    packed = gzip.compress(whole)
    for content in (b"", b"text", whole[:700], whole[: len(whole) // 2], packed[: len(packed) // 2]):
        (tmp_path / "bad.tar").write_bytes(content)
        with pytest.raises(StoreDamaged):
            restore(data_dir, tmp_path / "bad.tar", (), pytest.fail)
    with pytest.raises(StoreError, match="No such file"):
        restore(data_dir, tmp_path / "absent.tar", (), pytest.fail)
    assert saved_in(data_dir).values == {"a": b"1"}


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_backup_of_which_one_bit_has_turned_is_refused_or_restores_what_was_backed_up(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", b"1"), ValueSet("text", b"abc" * 500)])
    (data_dir / "key").write_text("s" * 300)
    write_backup(data_dir, tmp_path / "backup.tar", ["key"])
    whole, restored = compress((tmp_path / "backup.tar").read_bytes()), 0
    for position in range(0, len(whole), len(whole) // 200):
        turned = bytearray(whole)
        turned[position] ^= 1 << (position % 8)
        (tmp_path / "turned.tar").write_bytes(turned)
        (data_dir / "key").unlink(missing_ok=True)
        try:
            restore(data_dir, tmp_path / "turned.tar", ["key"], pytest.fail)
        except StoreDamaged:
            continue
        restored += 1
        assert saved_in(data_dir).values == {"a": b"1", "text": b"abc" * 500}
        assert (data_dir / "key").read_text() == "s" * 300
    assert restored < 50  # what turned was between the files


def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", b"1")])
    with closing(sqlite3.connect(data_dir / "heliosd.db")) as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StoreDamaged, match="newer"):
        write_backup(data_dir, tmp_path / "backup.tar", ())


def test_a_start_refuses_what_an_interrupted_restore_left_until_it_is_run_again(tmp_path: Path) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", b"1")])
    write_backup(data_dir, tmp_path / "backup.tar", ())
    (data_dir / "restore.unfinished").touch()
    (data_dir / "heliosd.db").unlink()
    with pytest.raises(StoreDamaged, match="heliosd restore"):
        Store.open(data_dir)
    restore(data_dir, tmp_path / "backup.tar", (), pytest.fail)
    assert saved_in(data_dir).values == {"a": b"1"}


@pytest.mark.parametrize("restored", [False, True])
def test_a_restore_that_is_run_again_keeps_the_replaced_database_and_its_revocations(
    tmp_path: Path, restored: bool
) -> None:
    data_dir = store_with(tmp_path / "data", [ValueSet("a", b"1")])
    write_backup(data_dir, tmp_path / "backup.tar", ())
    before = (data_dir / "heliosd.db").read_bytes()
    store_with(data_dir, [ValueSet("a", b"2"), TokenRevoked("new", 6e9)])
    (data_dir / "restore.unfinished").touch()
    (data_dir / "heliosd.db").rename(data_dir / "heliosd.db.before-restore")
    if restored:
        (data_dir / "heliosd.db").write_bytes(before)
    restore(data_dir, tmp_path / "backup.tar", (), pytest.fail)
    saved = saved_in(data_dir)
    assert (saved.values, saved.revoked) == ({"a": b"1"}, {"new": 6e9})
    assert read_checked(data_dir / "heliosd.db.before-restore", read).values == {"a": b"2"}


def test_a_database_of_an_older_layout_is_brought_to_the_present_one_with_all_that_is_in_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "heliosd.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        migrate(database, to=1)
        database.execute("PRAGMA application_id = 0x48454C53")
        database.execute("PRAGMA journal_mode = WAL")
        for change in (HardState("n", 3, "m"), RecordAdded("kind", 1, b"{}", 9), ValueSet("a", b"1")):
            apply(database, change)
    with closing(Store.open(tmp_path)) as store:
        saved = store.load()
        assert (saved.members["n"].term, saved.records, saved.values) == (3, {"kind": (b"{}",)}, {"a": b"1"})
        event = LoggedEvent(1, 0.0, "peer_change", b"{}")
        trio.run(store.save, [EventsLogged((event,))])
        assert store.load().events == (event,)
