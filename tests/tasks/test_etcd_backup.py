"""Backups of etcd's database: how each is taken, reported and kept, with a model of etcd and real files."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.etcd import backend as etcd_backend
from heliosd.cluster.etcd.client.errors import EtcdNoSpace, EtcdUnavailable
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.requests import Compare, Op, Put
from heliosd.cluster.etcd.client.responses import MemberStatus, TxnResult
from heliosd.config.model import EtcdConfig, HistoryConfig
from heliosd.errors import NoLeader
from heliosd.protocol.events import BackendItem, Provisional, SnapshotTaken
from heliosd.protocol.views.snapshots import SnapshotRecord
from heliosd.store.changes import LoggedEvent
from tests.support.etcd_model import Etcd
from tests.support.etcd_model_client import URL, ModelClient
from tests.support.simulated_harness import MemoryStore

MOST_SECONDS = 3_000.0
"""Of the mock clock, which goes on while a thread writes a file."""
WRITE_SECONDS = 4.8
"""So long a request waits for a write."""


class ModelSnapshot:
    """A database of two parts, with `seconds` between them; `error` comes in place of the second."""

    def __init__(self, seconds: float, error: Exception | None) -> None:
        self.size = 0
        self._seconds = seconds
        self._error = error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self.size == 8:
            raise StopAsyncIteration
        await trio.sleep(self._seconds if self.size else 0.0)
        if self.size and self._error is not None:
            raise self._error
        self.size += 4
        return b"part"


class BackedUpClient(ModelClient):
    """Its snapshots are as `seconds` and `error` say. With `full` it takes no puts; `alarms` is in its status."""

    def __init__(self, etcd: Etcd, identity: ClusterIdentity) -> None:
        super().__init__(etcd, identity)
        self.seconds = 0.0
        self.error: Exception | None = None
        self.full = False
        self.alarms: tuple[str, ...] = ()
        self.begun = 0
        self.begins = trio.Event()

    @asynccontextmanager
    async def snapshot(self, endpoint: str) -> AsyncGenerator[ModelSnapshot, None]:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        self.begun += 1
        self.begins.set()
        yield ModelSnapshot(self.seconds, self.error)

    async def status(self, endpoint: str) -> MemberStatus:
        return replace(await super().status(endpoint), errors=self.alarms)

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        if self.full and any(isinstance(each, Put) for each in then):
            await trio.lowlevel.checkpoint()
            raise EtcdNoSpace(URL, "etcdserver: mvcc: database space exceeded", 8)
        return await super().txn(compares, then, otherwise)


class Node:
    """A running backend that is ready, and the snapshot events that it publishes."""

    def __init__(self, directory: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        clients: list[BackedUpClient] = []

        def make(_config: EtcdConfig, identity: ClusterIdentity) -> BackedUpClient:
            clients.append(BackedUpClient(Etcd(), identity))
            return clients[-1]

        monkeypatch.setattr(etcd_backend, "EtcdClient", make)
        self.backend = etcd_backend.EtcdBackend(
            node_id="etcd-1",
            config=EtcdConfig(endpoints=(URL,)),
            history=HistoryConfig(max_events=100),
            directory=directory,
            saved=store.load(),
            save=store.save,
            revoked=lambda _jti, _expires_at: None,
            now=lambda: Instant(1_800_000_000.0 + trio.current_time(), trio.current_time()),
            buffer=256,
        )
        (self.client,) = clients
        self.folder = directory / "etcd-snapshots"
        self.logged: list[str] = []
        """The types of the snapshot events that the log has published."""
        self.provisional: list[str] = []
        self._news = trio.Event()

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}

    def hear(self, item: BackendItem) -> None:
        match item:
            case LoggedEvent(type="snapshot"):
                self.logged.append(json.loads(item.payload)["data"]["type"])
            case Provisional(event=SnapshotTaken(snapshot=snapshot)):
                self.provisional.append(snapshot.type)
            case _:
                return
        self._news.set()
        self._news = trio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds; it is checked whenever a snapshot event was published."""
        while not holds():
            await self._news.wait()

    async def follow(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with self.backend.events() as events:
            task_status.started()
            async for item in events:
                self.hear(item)


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    node = Node(tmp_path, MemoryStore(), monkeypatch)
    with trio.fail_after(MOST_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.follow)
            await nursery.start(node.backend.run)
            await trio.sleep(5)
            assert node.backend.not_ready() is None
            yield node
            nursery.cancel_scope.cancel()


async def test_a_backup_that_takes_longer_than_a_request_waits_is_taken_all_the_same(
    autojump_clock: MockClock, node: Node
) -> None:
    node.client.seconds = 6.0
    with pytest.raises(trio.TooSlowError), trio.fail_after(WRITE_SECONDS):
        await node.backend.take_snapshot()
    await node.until(lambda: node.logged == ["created"])
    latest = node.backend.snapshots.latest
    assert latest is not None
    assert node.files() == {f"{latest.id}.db"}
    assert (node.folder / f"{latest.id}.db").read_bytes() == b"partpart"


async def test_a_backup_that_fails_when_nobody_waits_any_more_is_reported_and_counted(
    autojump_clock: MockClock, node: Node
) -> None:
    node.client.seconds, node.client.error = 6.0, EtcdUnavailable(URL, "the snapshot stalled for 5 s")
    with pytest.raises(trio.TooSlowError), trio.fail_after(WRITE_SECONDS):
        await node.backend.take_snapshot()
    await node.until(lambda: node.logged == ["error"])
    assert node.backend.snapshots.report(Instant(0.0, 0.0)).failed_creations == 1
    assert node.files() == set()
    node.client.error = None
    assert (await node.backend.take_snapshot()).size == 8


async def test_all_who_ask_while_a_backup_runs_get_one_that_begins_after_they_asked(
    autojump_clock: MockClock, node: Node
) -> None:
    node.client.seconds = 6.0
    records: list[SnapshotRecord] = []

    async def take() -> None:
        records.append(await node.backend.take_snapshot())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await node.client.begins.wait()
        for _ in range(3):
            nursery.start_soon(take)
    assert node.client.begun == 2
    assert records[0] != records[1] == records[2] == records[3]


async def test_whoever_waits_for_a_backup_that_fails_is_told_why(
    autojump_clock: MockClock, node: Node
) -> None:
    node.client.error = EtcdUnavailable(URL, "it is gone")
    with pytest.raises(NoLeader, match="it is gone"):
        await node.backend.take_snapshot()


async def test_a_new_backup_stays_though_the_clock_was_set_back(
    autojump_clock: MockClock, node: Node
) -> None:
    records = []
    for _ in range(3):
        records.append(await node.backend.take_snapshot())
        await node.until(lambda: len(node.logged) == len(records))
        os.utime(node.folder / f"{records[-1].id}.db", (4e9, 4e9))
    records.append(await node.backend.take_snapshot())
    assert node.files() == {f"{each.id}.db" for each in records[1:]}


async def test_of_files_without_a_record_the_newest_stay_and_what_a_kill_left_goes(
    autojump_clock: MockClock, node: Node
) -> None:
    node.folder.mkdir()
    for index in range(1, 5):
        (node.folder / f"1-{index}.db").touch()
        os.utime(node.folder / f"1-{index}.db", (4e9 - index, 4e9 - index))
    (node.folder / "1-9.part").touch()
    record = await node.backend.take_snapshot()
    assert node.files() == {"1-1.db", "1-2.db", f"{record.id}.db"}


async def test_a_backup_and_its_name_are_on_disk_before_it_is_answered(
    autojump_clock: MockClock, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, set[str]]] = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.name, {each.name for each in path.iterdir()} if path.is_dir() else set()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    taken = (await node.backend.take_snapshot()).id
    data_dir = node.folder.parent
    assert synced == [
        (data_dir.name, {node.folder.name}),
        (f"{taken}.part", set()),
        (node.folder.name, {f"{taken}.db"}),
    ]


@pytest.mark.parametrize("known", [True, False], ids=["the alarm is known", "etcd only refuses"])
async def test_a_backup_is_told_at_once_while_etcd_has_no_space_and_again_by_the_log(
    autojump_clock: MockClock, node: Node, known: bool
) -> None:
    node.client.full = True
    if known:
        node.client.alarms = ("memberID:1 alarm:NOSPACE ",)
        await trio.sleep(5)
    await node.backend.take_snapshot()
    await node.until(lambda: node.provisional == ["created"])
    await trio.sleep(30)
    assert (node.provisional, node.logged) == (["created"], [])
    node.client.full, node.client.alarms = False, ()
    await node.until(lambda: node.logged == ["created"])
    assert node.provisional == ["created"]
