"""What was emitted is not emitted again when this node's member returns with an older state of its own, and what
never will be is noticed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.backend import Peer
from heliosd.cluster.metric_commands import UpdateMetric, encode_command
from heliosd.cluster.simulated.backend import SimulatedBackend
from heliosd.cluster.simulated.emitted_marker import marker, missing_events
from heliosd.config.model import PeerConfig
from heliosd.protocol.events import (
    Event,
    MetricsDefined,
    MetricValuesChanged,
    PeerChanged,
    SnapshotTaken,
    Value,
)
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.protocol.views.simulation import FaultChange
from heliosd.raft.simulation.proposals import WriteCommands
from tests.support.simulated_harness import CONFIG, MemoryStore, count, follow, ready, register, running


def defined(seen: list[Event | Value]) -> list[Mapping[str, MetricView | None]]:
    return [each.metrics for each in seen if isinstance(each, MetricsDefined)]


async def others_go_on(backend: SimulatedBackend) -> None:
    """This node's member crashes. The others elect a leader, count to 2, and keep nothing but their snapshots."""
    await backend.simulation.change(FaultChange(crashed=("node-1",)))
    await trio.sleep(3)
    members = backend.cluster.members
    leader = next(name for name, member in members.items() if member.alive and member.raft.role == "Leader")
    backend.cluster.propose(leader, 99, write(count(delta=1.0)))
    await trio.sleep(1)
    for name in ("node-2", "node-3"):
        assert backend.cluster.snapshot(name) is not None
    await trio.sleep(1)


def write(command: UpdateMetric) -> WriteCommands:
    return WriteCommands((encode_command(command),))


async def test_a_metric_is_not_registered_again_when_a_snapshot_follows_a_crash(
    autojump_clock: MockClock,
) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await ready(backend)
        assert await backend.transfer_leadership("node-1") == "node-1"
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await backend.propose(register())
        await backend.propose(count())
        await others_go_on(backend)
        await backend.simulation.change(FaultChange(crashed=()))
        await trio.sleep(3)
        assert backend.metrics.view("app_requests").value == 2
        nursery.cancel_scope.cancel()
    assert [each.snapshot.type for each in seen if isinstance(each, SnapshotTaken)] == [
        "received",
        "restored",
    ]
    assert [list(each) for each in defined(seen)] == [["app_requests"]]
    moved = [each.metrics["app_requests"].value for each in seen if isinstance(each, MetricValuesChanged)]
    assert moved == [1, 2]


async def test_nor_when_the_snapshot_comes_after_the_next_start_of_the_daemon(
    autojump_clock: MockClock,
) -> None:
    store, seen = MemoryStore(), list[Event | Value]()
    async with running(store) as backend:
        await ready(backend)
        assert await backend.transfer_leadership("node-1") == "node-1"
        await backend.propose(register())
        await others_go_on(backend)
    async with running(store) as backend, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await trio.sleep(3)
        assert backend.metrics.view("app_requests").value == 1
        nursery.cancel_scope.cancel()
    assert "received" in [each.snapshot.type for each in seen if isinstance(each, SnapshotTaken)]
    assert defined(seen) == []


OTHERS = ("node-2", "node-3", "node-4", "node-6")


@pytest.mark.parametrize(
    "compacted", [(), *(tuple(each for each in OTHERS if each != kept) for kept in OTHERS), OTHERS]
)
async def test_members_changed_before_this_nodes_disk_had_it_are_shown_after_a_start_and_not_told_again(
    autojump_clock: MockClock, compacted: tuple[str, ...]
) -> None:
    peers = tuple(PeerConfig(f"node-{serial}", f"127.0.0.1:700{serial}") for serial in range(2, 6))
    five = replace(CONFIG, peers=peers)
    store, seen = MemoryStore(), list[Event | Value]()
    async with running(store, five) as backend:
        await ready(backend)
        await backend.propose(register())
        await backend.simulation.change(FaultChange(disk_latency_ms={"node-1": 60_000.0}))
        await backend.propose(register("app_late"))
        await backend.add_peer(Peer("node-6", "127.0.0.1:7006"))
        await trio.sleep(1)  # it is a voter then, which is no event
        await backend.remove_peer("node-5")
        await backend.propose(count())
        await trio.sleep(1)
        for name in compacted:
            assert backend.cluster.snapshot(name) is not None
        await trio.sleep(1)
        assert backend.cluster.unwritten("node-1")
    saved = store.load()
    async with running(store, five) as backend, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await ready(backend)
        expected = {"node-2", "node-3", "node-4", "node-6"}
        assert backend.cluster.members["node-1"].raft.log.members.all.keys() == {"node-1", *expected}
        assert {peer.id for peer in backend.status().peers} == expected
        assert backend.latency.report(Instant(0.0, trio.current_time())).peers.keys() == expected
        nursery.cancel_scope.cancel()
    if compacted == OTHERS:  # no log says any more what the last event has shown: a new epoch begins
        assert missing_events(saved, "node-1") is not None
    else:
        assert missing_events(saved, "node-1") is None
        assert [each for each in seen if isinstance(each, PeerChanged)] == []
        assert defined(seen) == []


async def kill_after(store: MemoryStore, *, snapshot: bool, stores_events: bool) -> int:
    """A daemon registers three metrics, counts, and is killed. Returns the index of the last registration."""
    async with running(store, stores_events=stores_events) as backend:
        await ready(backend)
        for name in ("app_a", "app_b", "app_c"):
            registered = await backend.propose(register(name))
        await backend.propose(count("app_a"))
        if snapshot:
            await backend.take_snapshot()
        await trio.sleep(0.1)
    return registered.index


async def test_events_that_a_snapshot_overtook_on_the_way_to_the_disk_are_missed_at_the_next_start(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    last = await kill_after(store, snapshot=True, stores_events=False)
    assert missing_events(store.load(), "node-1") == marker(last)


@pytest.mark.parametrize("snapshot", [False, True])
async def test_no_event_is_missed_where_all_are_stored(autojump_clock: MockClock, snapshot: bool) -> None:
    store = MemoryStore()
    await kill_after(store, snapshot=snapshot, stores_events=True)
    assert missing_events(store.load(), "node-1") is None


async def test_events_that_were_not_stored_come_again_from_a_log_without_a_snapshot(
    autojump_clock: MockClock,
) -> None:
    store, seen = MemoryStore(), list[Event | Value]()
    await kill_after(store, snapshot=False, stores_events=False)
    assert missing_events(store.load(), "node-1") is None
    async with running(store) as backend, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await ready(backend)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert [list(each) for each in defined(seen)] == [["app_a"], ["app_b"], ["app_c"]]


@pytest.mark.parametrize("stores_events", [False, True])
async def test_events_of_a_leaders_snapshot_are_missed_where_the_kill_comes_before_they_are_stored(
    autojump_clock: MockClock, stores_events: bool
) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await ready(backend)
        await backend.propose(register())
        await backend.simulation.change(FaultChange(crashed=("node-1",)))
        await trio.sleep(3)
        members = backend.cluster.members
        leader = next(
            name for name, member in members.items() if member.alive and member.raft.role == "Leader"
        )
        for command in (register("app_new"), count()):
            backend.cluster.propose(leader, 99, WriteCommands((encode_command(command),)))
        await trio.sleep(1)
        for name in ("node-2", "node-3"):
            assert backend.cluster.snapshot(name) is not None
        await trio.sleep(1)
    assert missing_events(store.load(), "node-1") is None
    async with running(store, stores_events=stores_events) as backend:
        await ready(backend)
        await trio.sleep(3)
        assert backend.metrics.view("app_new").value == 0
        assert backend.cluster.members["node-1"].disk.snapshot_index > 1
    assert (missing_events(store.load(), "node-1") is None) == stores_events
