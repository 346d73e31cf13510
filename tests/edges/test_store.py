"""The store against a plain model: what was saved is what a later start finds."""

from __future__ import annotations

import logging
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from heliosd.errors import StoreBusy, StoreError
from heliosd.raft.messages import Entry, Snapshot
from heliosd.raft.storage import HardState, LogSuffix, MemberForgotten, MemberState, SnapshotSaved
from heliosd.store.changes import Change, RecordAdded, RecordsCleared, Saved, TokenRevoked, ValueSet
from heliosd.store.store import GROUP, WAL_BYTES, Store
from tests.support.deadlines import SECONDS

FAR_FUTURE = 4e9


@dataclass
class Opened:
    """A store, and its connection to SQLite with the statements that ran on it."""

    store: Store
    database: sqlite3.Connection
    statements: list[str] = field(default_factory=list)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path)) as store:
        yield store


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    connections: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def recorded(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connections.append(connect(*arguments, **options))
        return connections[-1]

    monkeypatch.setattr(sqlite3, "connect", recorded)
    with closing(Store.open(tmp_path)) as store:
        opened = Opened(store, connections[-1])
        opened.database.set_trace_callback(opened.statements.append)
        yield opened


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(index, term, "command", b"data %d" % index) for index in range(first, last + 1))


def saved_by(data_dir: Path, *changes: Change) -> Saved:
    """What a second start finds after a first one saved these changes, one call each."""

    async def save_all(store: Store) -> None:
        for change in changes:
            await store.save([change])

    with closing(Store.open(data_dir)) as store:
        trio.run(save_all, store)
    return loaded(data_dir)


def loaded(data_dir: Path) -> Saved:
    with closing(Store.open(data_dir)) as store:
        return store.load()


def test_a_new_store_is_empty(tmp_path: Path) -> None:
    assert loaded(tmp_path) == Saved()


def test_term_and_vote_come_back(tmp_path: Path) -> None:
    saved = saved_by(tmp_path, HardState("n1", 3, "n2"), HardState("n1", 4, ""), HardState("n2", 4, "n1"))
    assert saved.members == {"n1": MemberState(term=4, vote=""), "n2": MemberState(term=4, vote="n1")}


def test_a_log_suffix_replaces_what_stood_there_and_after(tmp_path: Path) -> None:
    newer = (Entry(3, 2, "noop"), Entry(4, 2, "membership", b'{"n1":"a"}'))
    saved = saved_by(tmp_path, LogSuffix("n1", entries(1, 9)), LogSuffix("n1", newer))
    assert saved.members["n1"].log == entries(1, 2) + newer


def test_a_snapshot_cuts_the_log_before_it(tmp_path: Path) -> None:
    snapshot = Snapshot(5, 1, {"n1": "a:1", "ñ": "b:2"}, b"\x00state")
    saved = saved_by(tmp_path, LogSuffix("n1", entries(1, 9)), SnapshotSaved("n1", snapshot))
    assert saved.members["n1"] == MemberState(snapshot=snapshot, log=entries(6, 9))


def test_a_snapshot_from_the_leader_discards_the_whole_log(tmp_path: Path) -> None:
    snapshot = Snapshot(5, 2, {"n1": "a:1"})
    saved = saved_by(
        tmp_path,
        LogSuffix("n1", entries(1, 9)),
        SnapshotSaved("n1", snapshot, keeps_log=False),
        LogSuffix("n1", entries(6, 6, term=2)),
    )
    assert saved.members["n1"] == MemberState(snapshot=snapshot, log=entries(6, 6, term=2))


def test_members_that_have_the_same_entries_share_them_in_memory(tmp_path: Path) -> None:
    other = (Entry(3, 2, "noop"),)
    saved = saved_by(tmp_path, LogSuffix("n1", entries(1, 3)), LogSuffix("n2", entries(1, 2) + other))
    logs = [saved.members[name].log for name in ("n1", "n2")]
    assert logs == [entries(1, 3), entries(1, 2) + other]
    assert all(mine is theirs for mine, theirs in zip(logs[0][:2], logs[1][:2], strict=True))


def test_a_forgotten_member_leaves_nothing_and_the_others_alone(tmp_path: Path) -> None:
    kept = LogSuffix("n2", entries(1, 1))
    saved = saved_by(
        tmp_path,
        *(HardState("n1", 1, "n1"), LogSuffix("n1", entries(1, 3)), SnapshotSaved("n1", Snapshot(2, 1))),
        *(kept, MemberForgotten("n1")),
    )
    assert saved.members == {"n2": MemberState(log=kept.entries)}


def test_a_history_keeps_its_newest_rows_in_the_order_of_their_keys(tmp_path: Path) -> None:
    rows = [RecordAdded("uptime_event", key, b"%d" % key, keep=3) for key in (5, 1, 4, 2, 3)]
    saved = saved_by(
        tmp_path, *rows, replace(rows[2], body=b"again"), RecordAdded("snapshot", 1, b"s", keep=3)
    )
    assert saved.records == {"uptime_event": (b"3", b"again", b"5"), "snapshot": (b"s",)}


def test_a_cleared_history_is_gone(tmp_path: Path) -> None:
    saved = saved_by(
        tmp_path, RecordAdded("a", 1, b"x", 9), RecordAdded("b", 1, b"y", 9), RecordsCleared("a")
    )
    assert saved.records == {"b": (b"y",)}


def test_a_value_is_replaced_and_removed(tmp_path: Path) -> None:
    saved = saved_by(
        tmp_path, ValueSet("a", b"1"), ValueSet("b", b"2"), ValueSet("a", b"3"), ValueSet("b", None)
    )
    assert saved.values == {"a": b"3"}


def test_revoked_tokens_are_remembered_whatever_the_wall_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"old": 1.0, "new": FAR_FUTURE}
    assert saved_by(tmp_path, *(TokenRevoked(jti, end) for jti, end in both.items())).revoked == both
    monkeypatch.setattr(time, "time", lambda: FAR_FUTURE + 1)
    assert loaded(tmp_path).revoked == both


def test_one_revocation_may_stand_for_all_up_to_an_end(tmp_path: Path) -> None:
    revoked = [TokenRevoked("a", 1.0), TokenRevoked("b", 3.0), TokenRevoked("", 2.0)]
    assert saved_by(tmp_path, *revoked).revoked == {"b": 3.0, "": 2.0}


async def test_a_log_never_gets_a_hole(store: Store) -> None:
    await store.save([LogSuffix("n1", entries(1, 5)), SnapshotSaved("n1", Snapshot(3, 1))])
    for wrong in (
        LogSuffix("n1", entries(7, 7)),
        LogSuffix("n1", entries(3, 4)),
        LogSuffix("n1", entries(6, 6) + entries(8, 8)),
        SnapshotSaved("n1", Snapshot(2, 1)),
    ):
        with pytest.raises(ValueError, match="n1"):
            await store.save([HardState("n1", 9, "n1"), wrong])
    assert store.load().members["n1"] == MemberState(snapshot=Snapshot(3, 1), log=entries(4, 5))


async def test_a_call_that_fails_does_not_fail_those_that_share_its_transaction(store: Store) -> None:
    outcomes: dict[str, Exception | None] = {}

    async def save(name: str, change: Change) -> None:
        try:
            await store.save([ValueSet(name, b""), change])
            outcomes[name] = None
        except ValueError as error:
            outcomes[name] = error

    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        async with trio.open_nursery() as callers:
            callers.start_soon(save, "before", LogSuffix("n1", entries(1, 1)))
            callers.start_soon(save, "wrong", LogSuffix("n2", entries(5, 5)))
            callers.start_soon(save, "after", LogSuffix("n3", entries(1, 1)))
        nursery.cancel_scope.cancel()
    assert {name for name, error in outcomes.items() if error} == {"wrong"}
    assert store.load().values.keys() == {"before", "after"}


async def test_calls_that_wait_together_share_a_transaction(opened: Opened) -> None:
    store = opened.store
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        async with trio.open_nursery() as callers:
            for number in range(4 * GROUP):
                callers.start_soon(store.save, [ValueSet(f"v{number}", b"1")])
        nursery.cancel_scope.cancel()
    assert opened.statements.count("COMMIT") == 4
    assert len(store.load().values) == 4 * GROUP


async def test_a_caller_that_is_cancelled_leaves_all_or_nothing_and_the_others_served(store: Store) -> None:
    async def save(number: int, scope: trio.CancelScope) -> None:
        with scope:
            await store.save([ValueSet(f"a{number}", b""), ValueSet(f"b{number}", b"")])

    scopes = [trio.CancelScope() for _ in range(3 * GROUP)]
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        async with trio.open_nursery() as callers:
            for number, scope in enumerate(scopes):
                callers.start_soon(save, number, scope)
            # Some are in the thread then, some in the queue, some wait for the queue: three groups take more turns.
            for _ in range(4):
                await trio.lowlevel.checkpoint()
            for scope in scopes[::2]:
                scope.cancel()
        await store.save([ValueSet("after", b"")])
        nursery.cancel_scope.cancel()
    values = store.load().values.keys()
    assert any(scope.cancelled_caught for scope in scopes)
    for number, scope in enumerate(scopes):
        assert (f"a{number}" in values) == (f"b{number}" in values)
        assert f"a{number}" in values or scope.cancelled_caught
    assert "after" in values


async def test_what_waits_when_the_writer_is_cancelled_is_still_written(store: Store) -> None:
    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for number in range(3 * GROUP):
            callers.start_soon(store.save, [ValueSet(f"v{number}", b"1")])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(store.load().values) == 3 * GROUP
    await store.save([ValueSet("last words", b"1")])
    assert "last words" in store.load().values


async def test_a_disk_that_does_not_say_how_long_the_log_is_ends_nothing(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    store._wal = tmp_path / "file" / "wal"  # asking for it fails, but not for its absence
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        await wait_all_tasks_blocked()
        for _ in range(2):
            await store.save([ValueSet("name", b"x")])
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_quiet_moment_empties_the_log_into_the_database(store: Store, tmp_path: Path) -> None:
    database = tmp_path / "heliosd.db"
    before = database.stat().st_size
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await store.save([LogSuffix("n1", entries(1, 1000))])
            assert database.stat().st_size == before
            while database.stat().st_size == before:  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def test_without_a_quiet_moment_the_log_stays_bounded(store: Store, tmp_path: Path) -> None:
    wal = tmp_path / "heliosd.db-wal"
    megabyte = bytes(1024 * 1024)
    largest = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for number in range(40):
            await store.save([ValueSet(f"v{number % 3}", megabyte)])
            largest = max(largest, wal.stat().st_size)
        nursery.cancel_scope.cancel()
    assert WAL_BYTES < largest < WAL_BYTES + 2 * len(megabyte)


async def test_a_checkpoint_that_fails_is_logged_once(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(opened.store.run)
        for number in range(1, 4):
            await opened.store.save([ValueSet("a", b"%d" % number)])
            fails = number < 3
            if fails:
                opened.database.execute("BEGIN IMMEDIATE")  # a checkpoint cannot run inside a transaction
            with trio.fail_after(SECONDS):
                while sum("wal_checkpoint" in each for each in opened.statements) < number:  # noqa: ASYNC110 (SQLite calls from a thread)
                    await trio.sleep(0.01)
            if fails:
                opened.database.execute("ROLLBACK")
        nursery.cancel_scope.cancel()
    assert [(record.levelno, "checkpoint" in record.message) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


def test_a_second_daemon_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)), pytest.raises(StoreBusy, match="another heliosd is running"):
        Store.open(tmp_path)
    Store.open(tmp_path).close()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        Store.open(tmp_path / "nowhere")


def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        trio.run(store.save, [ValueSet("a", b"")])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"heliosd.db": 0o600, "heliosd.db-wal": 0o600, "heliosd.lock": 0o600}
    (tmp_path / "heliosd.db").chmod(0o644)
    Store.open(tmp_path).close()
    assert stat.S_IMODE((tmp_path / "heliosd.db").stat().st_mode) == 0o600


# The model: the same changes on plain dictionaries.

NAMES = st.sampled_from(["n1", "n2", "", "ключ", "with\0nul"])
BODIES = st.binary(max_size=40) | st.sampled_from([bytes(9000)])
NUMBERS = st.integers(0, 2**63 - 1)


@dataclass
class Model:
    members: dict[str, MemberState] = field(default_factory=dict)
    records: dict[str, dict[int, bytes]] = field(default_factory=dict)
    values: dict[str, bytes] = field(default_factory=dict)
    revoked: dict[str, float] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        match change:
            case HardState(member, term, vote):
                self.members[member] = msgspec.structs.replace(self.member(member), term=term, vote=vote)
            case LogSuffix(member, suffix):
                state = self.member(member)
                kept = tuple(entry for entry in state.log if entry.index < suffix[0].index)
                self.members[member] = msgspec.structs.replace(state, log=kept + suffix)
            case SnapshotSaved(member, snapshot, keeps_log):
                state = self.member(member)
                kept = tuple(entry for entry in state.log if entry.index > snapshot.index)
                self.members[member] = msgspec.structs.replace(
                    state, snapshot=snapshot, log=kept if keeps_log else ()
                )
            case MemberForgotten(member):
                self.members.pop(member, None)
            case RecordAdded(kind, key, body, keep):
                rows = self.records.get(kind, {}) | {key: body}
                self.records[kind] = {
                    key: rows[key] for key in sorted(rows)[len(rows) - min(keep, len(rows)) :]
                }
            case RecordsCleared(kind):
                self.records.pop(kind, None)
            case ValueSet(name, None):
                self.values.pop(name, None)
            case ValueSet(name, bytes(body)):
                self.values[name] = body
            case TokenRevoked(jti, expires_at):
                if not jti:
                    self.revoked = {one: end for one, end in self.revoked.items() if end > expires_at}
                self.revoked[jti] = expires_at

    def member(self, name: str) -> MemberState:
        return self.members.get(name, MemberState())

    def saved(self) -> Saved:
        records = {kind: tuple(rows.values()) for kind, rows in self.records.items() if rows}
        return Saved(members=self.members, records=records, values=self.values, revoked=self.revoked)


@st.composite
def changes(draw: st.DrawFn, model: Model) -> Change:
    name = draw(NAMES)
    snapshot, log = model.member(name).snapshot, model.member(name).log
    last = snapshot.index + len(log)
    match draw(st.integers(0, 8)):
        case 0:
            return HardState(name, draw(NUMBERS), draw(NAMES))
        case 1 | 2:
            first = draw(st.integers(snapshot.index + 1, last + 1))
            kinds = st.sampled_from(["command", "membership", "noop"])
            suffix = draw(st.lists(st.tuples(NUMBERS, kinds, BODIES), min_size=1, max_size=5))
            return LogSuffix(
                name,
                tuple(Entry(index, *fields) for index, fields in enumerate(suffix, first)),  # type: ignore[arg-type]
            )
        case 3:
            index = draw(st.integers(snapshot.index, last + 3))
            members = draw(
                st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
            )
            return SnapshotSaved(
                name, Snapshot(index, draw(NUMBERS), members, draw(BODIES)), draw(st.booleans())
            )
        case 4:
            return MemberForgotten(name)
        case 5:
            key = draw(st.integers(-5, 5) | NUMBERS)
            return RecordAdded(name, key, draw(BODIES), draw(st.integers(0, 4)))
        case 6:
            return RecordsCleared(name) if draw(st.booleans()) else ValueSet(name, None)
        case 7:
            return ValueSet(name, draw(BODIES))
        case _:
            expiries = st.floats(FAR_FUTURE, allow_nan=False) | st.floats(max_value=1e9, allow_nan=False)
            return TokenRevoked(name, draw(expiries))


@given(data=st.data())
@settings(max_examples=settings().max_examples * 2 // 5)
def test_after_any_changes_and_restarts_the_store_holds_what_a_model_holds(data: st.DataObject) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as name:
        for _ in range(data.draw(st.integers(1, 3), label="starts")):
            with closing(Store.open(Path(name))) as store:
                assert store.load() == model.saved()
                for _ in range(data.draw(st.integers(0, 8), label="saves")):
                    group: list[Change] = []
                    for _ in range(data.draw(st.integers(0, 4), label="changes")):
                        group.append(data.draw(changes(model)))
                        model.apply(group[-1])
                    trio.run(store.save, group)
                assert store.load() == model.saved()
        assert loaded(Path(name)) == model.saved()
