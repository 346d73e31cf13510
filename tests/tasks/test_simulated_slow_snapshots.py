"""Snapshots of this node's member while its disk is slow and the writes do not end."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.cluster.metric_commands import encode_command
from heliosd.cluster.simulated.backend import SimulatedBackend
from heliosd.errors import NoLeader, OutcomeUnknown
from heliosd.protocol.events import Event, SnapshotTaken, Value
from heliosd.protocol.views.simulation import FaultChange
from heliosd.raft.simulation.proposals import TransferLeadership, WriteCommands
from tests.support.simulated_harness import CONFIG, count, follow, ready, register, running

SLOW = {"node-1": 800.0}


async def keep_writing(backend: SimulatedBackend) -> None:
    while True:
        with suppress(NoLeader, OutcomeUnknown):
            await backend.propose(count())
        await trio.sleep(0.05)


def taken(seen: list[Event | Value], kind: str) -> list[int]:
    """The indices of the snapshots of this kind."""
    return [
        each.snapshot.index for each in seen if isinstance(each, SnapshotTaken) and each.snapshot.type == kind
    ]


async def test_a_snapshot_is_answered_once_a_slow_disk_has_it_though_later_writes_wait(
    autojump_clock: MockClock,
) -> None:
    async with running() as backend, trio.open_nursery() as nursery:
        await ready(backend)
        await backend.propose(register())
        await backend.simulation.change(FaultChange(disk_latency_ms=SLOW))
        nursery.start_soon(keep_writing, backend)
        await trio.sleep(2)
        began = trio.current_time()
        with trio.fail_after(3):
            record = await backend.take_snapshot()
        assert trio.current_time() - began >= 0.8
        assert backend.cluster.members["node-1"].disk.snapshot_index >= record.index
        nursery.cancel_scope.cancel()


async def test_every_snapshot_on_a_slow_disk_is_reported(autojump_clock: MockClock) -> None:
    seen: list[Event | Value] = []
    stored: list[int] = []
    config = replace(CONFIG, snapshot_threshold=3)
    async with running(config=config) as backend, trio.open_nursery() as nursery:
        await ready(backend)
        await backend.propose(register())
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await backend.simulation.change(FaultChange(disk_latency_ms=SLOW))
        await trio.sleep(2)
        seen.clear()
        nursery.start_soon(keep_writing, backend)
        disk = backend.cluster.members["node-1"].disk
        before = disk.snapshot_index
        for _ in range(1000):
            await trio.sleep(0.01)
            if disk.snapshot_index != [before, *stored][-1]:
                stored.append(disk.snapshot_index)
        nursery.cancel_scope.cancel()
    assert len(stored) > 5
    assert taken(seen, "created") == stored


async def test_a_leaders_snapshot_on_a_slow_disk_is_reported_though_later_writes_wait(
    autojump_clock: MockClock,
) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await ready(backend)
        await backend.propose(register())
        assert await backend.transfer_leadership("node-2") == "node-2"
        await backend.simulation.change(FaultChange(crashed=("node-1",), disk_latency_ms=SLOW))
        cluster = backend.cluster
        cluster.propose("node-2", 99, WriteCommands((encode_command(count()),)))
        await trio.sleep(1)
        for name in ("node-2", "node-3"):
            assert cluster.snapshot(name) is not None
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await backend.simulation.change(FaultChange(crashed=()))
        await trio.sleep(0.4)
        cluster.propose("node-2", 100, TransferLeadership("node-3"))  # its term is written after the snapshot
        disk = cluster.members["node-1"].disk
        with trio.fail_after(2):
            while disk.snapshot_index == 1:  # noqa: ASYNC110 (no event for it)
                await trio.sleep(0.01)
        assert cluster.unwritten("node-1")
        await trio.sleep(0.05)
        assert taken(seen, "received") == [disk.snapshot_index]
        nursery.cancel_scope.cancel()


async def test_a_snapshot_that_a_crash_lost_is_not_reported_though_an_earlier_write_was_kept(
    autojump_clock: MockClock,
) -> None:
    seen: list[Event | Value] = []
    refused: list[Exception] = []

    async def ask(backend: SimulatedBackend) -> None:
        with pytest.raises(NoLeader) as caught:
            await backend.take_snapshot()
        refused.append(caught.value)

    async with running() as backend, trio.open_nursery() as nursery:
        await ready(backend)
        assert await backend.transfer_leadership("node-2") == "node-2"
        await backend.propose(register())
        await trio.sleep(1)
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await backend.simulation.change(FaultChange(disk_latency_ms=SLOW))
        assert await backend.transfer_leadership("node-3") == "node-3"  # this node has its new term to write
        nursery.start_soon(ask, backend)
        await trio.sleep(0.1)
        before = backend.cluster.members["node-1"].disk.snapshot_index
        await backend.simulation.change(FaultChange(crashed=("node-1",)))
        await trio.sleep(2)
        assert len(refused) == 1
        assert backend.cluster.members["node-1"].disk.snapshot_index == before
        nursery.cancel_scope.cancel()
    assert taken(seen, "created") == []
