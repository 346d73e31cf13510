"""The simulated backend on a clock that jumps."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.backend import Peer
from heliosd.cluster.metric_commands import DeleteMetric, ResetMetrics, UpdateMetric
from heliosd.errors import Conflict, Invalid, NotFound, StoreError
from heliosd.hub.status_messages import StatusMessages
from heliosd.protocol.events import (
    Event,
    MetricsDefined,
    MetricValuesChanged,
    PeerChanged,
    SnapshotTaken,
    StateChanged,
    StateComplete,
    Value,
)
from heliosd.protocol.history import History
from heliosd.protocol.subscription import TO_EVERYTHING
from tests.support.simulated_harness import (
    ALONE,
    CONFIG,
    MemoryStore,
    count,
    follow,
    ready,
    register,
    running,
)


async def test_a_leader_is_elected_within_seconds_and_reported_with_its_term(
    autojump_clock: MockClock,
) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        assert backend.not_ready() == "no leader"
        await ready(backend)
        status = backend.status()
        nursery.cancel_scope.cancel()
    last = [event for event in seen if isinstance(event, StateChanged)][-1]
    assert (last.new_state, last.term, last.leader) == (status.node.state, status.node.term, status.leader.id)
    assert last.member == "node-1"
    assert status.leader.id
    assert not status.stale
    assert status.indices.applied_index == status.indices.last_log == 2


async def test_at_a_start_nobody_waits_out_an_election_timeout(autojump_clock: MockClock) -> None:
    store, slow = MemoryStore(), replace(CONFIG, election_timeout=60.0)
    for _ in range(2):  # the first start, and one with what that has stored
        async with running(store, slow) as backend:
            with trio.fail_after(1):
                await ready(backend)


async def test_a_node_alone_leads_itself(autojump_clock: MockClock) -> None:
    async with running(config=ALONE) as backend:
        await ready(backend)
        assert backend.status().leader.is_leader
        assert (await backend.propose(register())).index == 3


async def test_a_write_is_on_disk_and_readable_when_it_is_answered(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        committed = await backend.propose(register())
        stored = [member.log[-1].index for member in store.load().members.values() if member.log]
        assert sum(last >= committed.index for last in stored) >= 2
        assert backend.metrics.view("app_requests").value == 0
        await backend.propose(count(delta=2))
        assert backend.metrics.view("app_requests").value == 2


async def test_what_the_metrics_refuse_is_raised_to_the_caller(autojump_clock: MockClock) -> None:
    async with running() as backend:
        await backend.propose(register())
        with pytest.raises(Conflict):
            await backend.propose(register())
        with pytest.raises(NotFound):
            await backend.propose(count("app_other"))
        with pytest.raises(Invalid):
            await backend.propose(UpdateMetric(name="app_requests", delta=-1, at=1.0))
        assert backend.metrics.view("app_requests").value == 0


async def test_every_answered_write_is_there_after_a_kill(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    answered = 0
    for incarnation in range(5):
        async with running(store, replace(CONFIG, seed=incarnation + 1)) as backend:
            if incarnation == 0:
                await backend.propose(register())
            await ready(backend)
            assert backend.metrics.view("app_requests").value >= answered
            with trio.move_on_after(0.5 + incarnation / 10):
                while True:
                    await backend.propose(count())
                    answered += 1
    async with running(store) as backend:
        await ready(backend)
        assert backend.metrics.view("app_requests").value >= answered > 100


async def test_many_writes_at_once_share_their_saves(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await backend.propose(register())
        before, started = len(store.saves), trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(backend.propose, count())
        assert trio.current_time() - started < 0.1
        assert len(store.saves) - before < 10
        assert backend.metrics.view("app_requests").value == 500


async def test_an_idle_cluster_writes_only_that_it_is_up(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await ready(backend)
        await trio.sleep(1)
        before = len(store.saves)
        await trio.sleep(60)
        assert len(store.saves) - before <= 7


async def test_metrics_are_events_and_their_values_are_values(autojump_clock: MockClock) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await ready(backend)
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await backend.propose(register("app_a"))
        await backend.propose(register("app_b"))
        await backend.propose(count("app_a"))
        await backend.propose(DeleteMetric(name="app_a", at=1.0))
        await backend.propose(ResetMetrics(at=1.0))
        await backend.propose(ResetMetrics(at=1.0))
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    defined = [event.metrics for event in seen if isinstance(event, MetricsDefined)]
    assert [list(metrics) for metrics in defined] == [["app_a"], ["app_b"], ["app_a"], ["app_b"]]
    assert [metrics[name] is None for metrics in defined for name in metrics] == [False, False, True, True]
    moved = [event.metrics["app_a"].value for event in seen if isinstance(event, MetricValuesChanged)]
    assert moved == [1.0]


async def test_a_session_ends_with_helios_reason(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    for closed in (True, False):
        async with running(store) as backend:
            await ready(backend)
            if closed:
                await backend.close()
    async with running(store) as backend:
        await ready(backend)
        sessions = backend.uptime.history(Instant(1_800_000_000.0, trio.current_time())).recent_sessions
        assert [session.end_reason for session in sessions] == [None, "crash", "graceful_shutdown"]


async def test_what_was_emitted_before_a_restart_is_not_emitted_again(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await backend.propose(register())
        await backend.add_peer(Peer("node-4", "127.0.0.1:7003"))
        await trio.sleep(15)
        await backend.close()
    seen: list[Event | Value] = []
    async with running(store) as backend, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await ready(backend)
        assert backend.metrics.view("app_requests").value == 0
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert {type(event) for event in seen} == {StateChanged}


async def test_after_a_restart_a_status_says_that_it_is_incomplete_until_every_answered_write_is_in_it(
    autojump_clock: MockClock,
) -> None:
    history = History("epoch", 100, 3600.0)

    def status() -> dict[str, Any]:
        data: dict[str, Any] = json.loads(messages.status(history, TO_EVERYTHING).payload)["data"]
        return data

    store = MemoryStore()
    async with running(store) as backend:
        await backend.propose(register())
        await backend.take_snapshot()
        for _ in range(20):
            await backend.propose(count())
    async with running(store) as backend, backend.events() as events:
        now = Instant(1_800_000_000.0, 0.0)
        messages = StatusMessages(backend, clients=lambda: 0, now=lambda: now)
        before = status()
        assert (before["complete"], before["stale"]) == (False, True)
        values: list[float] = []
        while not isinstance(item := await events.receive(), StateComplete):
            if isinstance(item, MetricValuesChanged):
                values.append(item.metrics["app_requests"].value)
        assert backend.metrics.view("app_requests").value == 20
        await trio.sleep(1)
        after = status()
        assert after["custom_metrics"]["app_requests"]["value"] == 20
        assert ("complete" in after, after["stale"]) == (False, False)
        assert backend.complete
        while True:
            try:
                assert not isinstance(events.receive_nowait(), StateComplete)
            except trio.WouldBlock:
                break


async def test_a_peer_that_is_added_takes_part_and_one_that_is_removed_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    seen: list[Event | Value] = []
    async with running(store) as backend, trio.open_nursery() as nursery:
        await ready(backend)
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await backend.add_peer(Peer("node-4", "127.0.0.1:7003"))
        assert [peer.id for peer in backend.status().peers] == ["node-2", "node-3", "node-4"]
        await trio.sleep(3)
        assert "node-4" in store.load().members
        assert backend.status().peers[2].latency.sample_count > 0
        for wrong in [Peer("node-4", "127.0.0.1:7009"), Peer("node-5", "127.0.0.1:7003")]:
            with pytest.raises(Conflict):
                await backend.add_peer(wrong)
        assert await backend.remove_peer("node-4") == Peer("node-4", "127.0.0.1:7003")
        assert [peer.id for peer in backend.status().peers] == ["node-2", "node-3"]
        await trio.sleep(1)
        assert "node-4" not in store.load().members
        with pytest.raises(NotFound):
            await backend.remove_peer("node-4")
        with pytest.raises(Conflict):
            await backend.remove_peer("node-1")
        nursery.cancel_scope.cancel()
    changes = [
        (event.event_type, event.peer_id, event.peer_address)
        for event in seen
        if isinstance(event, PeerChanged)
    ]
    assert changes == [("added", "node-4", "127.0.0.1:7003"), ("removed", "node-4", "127.0.0.1:7003")]


async def test_members_change_in_quick_succession_from_one_to_five_and_back(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    async with running(store, ALONE) as backend:
        for number in range(2, 6):
            await backend.add_peer(Peer(f"node-{number}", f"127.0.0.1:70{number:02}"))
        await backend.propose(register())
        for number in range(2, 6):
            await backend.remove_peer(f"node-{number}")
        await backend.propose(count())
        assert backend.status().peers == ()
        await trio.sleep(1)
        assert list(store.load().members) == ["node-1"]


async def test_leadership_goes_where_it_is_sent_and_comes_back(autojump_clock: MockClock) -> None:
    async with running() as backend:
        await ready(backend)
        for target in ["node-2", "node-1", "node-3", "node-3"]:
            assert await backend.transfer_leadership(target) == target
            assert backend.status().leader.id == target
            await backend.propose(register(f"app_{target[-1]}_{backend.status().node.term}"[:12])) if (
                target != "node-3"
            ) else None
        before = backend.status().leader.id
        assert await backend.transfer_leadership(None) != before
        with pytest.raises(NotFound):
            await backend.transfer_leadership("node-9")


async def test_a_follower_shows_no_indices_of_others_and_a_leader_does(autojump_clock: MockClock) -> None:
    async with running() as backend:
        await ready(backend)
        await backend.transfer_leadership("node-1")
        await trio.sleep(1)
        status = backend.status()
        assert [peer.match_index for peer in status.peers] == [status.indices.last_log] * 2
        await backend.transfer_leadership("node-2")
        assert not isinstance(backend.status().peers[0].match_index, int)


async def test_latencies_come_from_messages_that_travelled(autojump_clock: MockClock) -> None:
    async with running(config=replace(CONFIG, latency_ms=20.0)) as backend:
        await ready(backend)
        await trio.sleep(30)
        for peer in backend.status().peers:
            assert 20 < peer.latency.min_latency_ms < peer.latency.avg_latency_ms < 100
            assert peer.latency.sample_count > 20
        assert backend.status().cluster_health.healthy_peers == 2


async def test_a_snapshot_is_answered_once_its_record_is_on_disk(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await backend.propose(register())
        record = await backend.take_snapshot()
        assert [msgspec.json.decode(each)["id"] for each in store.load().records["snapshot"]] == [record.id]


async def test_a_snapshot_is_taken_on_demand_and_restored_after_a_restart(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    seen: list[Event | Value] = []
    async with running(store) as backend, trio.open_nursery() as nursery:
        await backend.propose(register())
        committed = await backend.propose(count(delta=5))
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        record = await backend.take_snapshot()
        assert (record.index, record.term) == (committed.index, committed.term)
        assert await backend.take_snapshot() == record
        assert store.load().members["node-1"].snapshot.index == committed.index
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    async with running(store) as backend, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await ready(backend)
        assert backend.metrics.view("app_requests").value == 5
        assert backend.snapshots.latest == record
        nursery.cancel_scope.cancel()
    assert [event.snapshot.type for event in seen if isinstance(event, SnapshotTaken)] == ["created"]


async def test_logs_are_compacted_when_they_are_long_and_when_time_has_passed(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    config = replace(CONFIG, snapshot_threshold=50, snapshot_interval=100.0)
    async with running(store, config) as backend:
        await backend.propose(register())
        for _ in range(60):
            await backend.propose(count())
        await trio.sleep(1)
        states = store.load().members
        assert {len(state.log) < 50 and state.snapshot.index >= 50 for state in states.values()} == {True}
        committed = await backend.propose(count())
        await trio.sleep(110)
        assert {state.snapshot.index for state in store.load().members.values()} == {committed.index}
        await trio.sleep(200)
        assert {state.snapshot.index for state in store.load().members.values()} == {committed.index}


async def test_another_nodes_data_is_refused_and_untouched(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await backend.propose(register())
    before = store.load()
    with pytest.raises(StoreError, match="node-1"):
        async with running(store, node="other"):
            pass
    assert store.load() == before


async def test_the_stored_members_hold_over_the_configured_ones(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await backend.remove_peer("node-3")
        await trio.sleep(1)
    async with running(store) as backend:
        await ready(backend)
        assert [peer.id for peer in backend.status().peers] == ["node-2"]
    assert "node-3" in caplog.text
    assert "configured" in caplog.text


class _Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_a_quiet_cluster_wakes_five_times_a_second_and_misses_nothing(
    autojump_clock: MockClock,
) -> None:
    turns = _Turns()
    async with running() as backend:
        await ready(backend)
        await trio.sleep(1)
        latency = backend.latency
        before = sum(total.seconds.count for total in latency.call_totals())
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(60)
        trio.lowlevel.remove_instrument(turns)
        assert turns.count <= 2 * 5 * 60, "each waking takes two turns of the loop"
        calls = sum(total.seconds.count for total in latency.call_totals()) - before
        assert calls >= 2 * 59, "every probe was made and measured"
        started = trio.current_time()
        await backend.propose(register())
        assert trio.current_time() - started < 0.05, "a request wakes it"


@pytest.mark.parametrize("seed", range(4))
async def test_members_that_come_and_go_in_a_quiet_cluster_depose_nobody(
    autojump_clock: MockClock, seed: int
) -> None:
    config = replace(CONFIG, seed=seed, election_timeout=0.15, heartbeat_interval=0.03)
    async with running(MemoryStore(seconds=0.0005), config) as backend:
        await ready(backend)
        await trio.sleep(1)
        before = backend.cluster.members["node-1"].raft.term
        for number in range(20):
            peer = Peer(f"new-{number}", f"127.0.0.1:{7100 + number}")
            await backend.add_peer(peer)
            await trio.sleep(0.3 + 0.01 * number)
            await backend.remove_peer(peer.id)
            await trio.sleep(0.01 * number)
        assert backend.cluster.members["node-1"].raft.term == before


@pytest.mark.slow
async def test_an_hour_of_three_quiet_members_is_simulated_in_seconds(autojump_clock: MockClock) -> None:
    async with running() as backend:
        await ready(backend)
        began = time.process_time()
        await trio.sleep(3600)
        took = time.process_time() - began
        assert backend.not_ready() is None
    print(f"an hour in {took:.1f} s")
    assert took < 10
