"""The simulated backend under faults of the network and the disk."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import suppress

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.backend import Committed, Peer
from heliosd.cluster.metric_commands import DeleteMetric, MetricCommand, encode_command
from heliosd.cluster.simulated.backend import SimulatedBackend
from heliosd.cluster.simulated.requests import ClientRequest
from heliosd.cluster.simulated.snapshotting import SnapshotRequest
from heliosd.errors import Conflict, NoLeader, OutcomeUnknown, StoreFull
from heliosd.protocol.events import (
    Event,
    MetricsDefined,
    PeerChanged,
    SnapshotTaken,
    StateChanged,
    Value,
)
from heliosd.protocol.views.simulation import FaultChange
from heliosd.raft.simulation.proposals import WriteCommands
from heliosd.raft.storage import MemberForgotten
from heliosd.store.changes import Change
from tests.support.simulated_harness import (
    CONFIG,
    TWO,
    MemoryStore,
    count,
    follow,
    ready,
    register,
    running,
)


def isolate(backend: SimulatedBackend, *names: str) -> None:
    backend.cluster.net.partition([names])


async def led_by(backend: SimulatedBackend, name: str) -> None:
    await ready(backend)
    assert await backend.transfer_leadership(name) == name
    await trio.sleep(0.5)


@pytest.mark.parametrize("leader", ["node-1", "node-2"])
async def test_writes_succeed_whichever_member_leads(autojump_clock: MockClock, leader: str) -> None:
    async with running() as backend:
        await led_by(backend, leader)
        await backend.propose(register())
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(backend.propose, count())
        assert backend.metrics.view("app_requests").value == 100


async def test_without_a_majority_nothing_is_written_and_the_caller_knows_in_time(
    autojump_clock: MockClock,
) -> None:
    async with running() as backend:
        await led_by(backend, "node-1")
        isolate(backend, "node-1")
        await trio.sleep(2)
        assert backend.status().stale
        assert backend.not_ready() == "no leader"
        started = trio.current_time()
        with pytest.raises(NoLeader):
            await backend.propose(register())
        assert trio.current_time() - started < 2.1
        isolate(backend)
        await backend.propose(register())


async def test_a_write_of_unknown_outcome_is_reported_as_such_within_five_seconds(
    autojump_clock: MockClock,
) -> None:
    async with running(config=replace(CONFIG, election_timeout=30.0)) as backend:
        with trio.fail_after(100):
            while backend.not_ready() is not None:  # noqa: ASYNC110
                await trio.sleep(1)
        await backend.transfer_leadership("node-1")
        isolate(backend, "node-1")
        started = trio.current_time()
        with pytest.raises(OutcomeUnknown):
            await backend.propose(register())
        assert 4 < trio.current_time() - started < 5


async def test_a_write_that_a_new_leader_truncated_is_reported_as_not_done(autojump_clock: MockClock) -> None:
    async with running() as backend:
        await led_by(backend, "node-1")
        isolate(backend, "node-1")
        outcomes: list[Exception] = []

        async def write() -> None:
            try:
                await backend.propose(register())
            except NoLeader as refused:
                outcomes.append(refused)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.sleep(3)
            isolate(backend)
        assert len(outcomes) == 1
        await trio.sleep(1)
        assert len(backend.metrics) == 0


async def test_a_lossy_network_does_each_write_once(autojump_clock: MockClock) -> None:
    answered = unknown = 0
    async with running(config=replace(CONFIG, loss=0.2)) as backend:
        await backend.propose(register())
        for _ in range(100):
            try:
                await backend.propose(count())
                answered += 1
            except OutcomeUnknown:
                unknown += 1
            except NoLeader:
                pass
        await ready(backend)
        assert answered > 50
        assert answered <= backend.metrics.view("app_requests").value <= answered + unknown


async def test_a_peer_that_stops_answering_is_reported_and_so_is_its_return(
    autojump_clock: MockClock,
) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await led_by(backend, "node-1")
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        isolate(backend, "node-3")
        await trio.sleep(5)
        assert backend.status().cluster_health.unhealthy_peers == 1
        isolate(backend)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    turns = [(event.event_type, event.peer_id) for event in seen if isinstance(event, PeerChanged)]
    assert turns == [("unhealthy", "node-3"), ("healthy", "node-3")]


async def test_a_lost_leader_is_reported_before_the_new_one(autojump_clock: MockClock) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await led_by(backend, "node-2")
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        isolate(backend, "node-2")
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    leaders = [event.leader for event in seen if isinstance(event, StateChanged)]
    assert leaders[0] == ""
    assert leaders[-1] in {"node-1", "node-3"}


async def test_a_node_that_was_away_gets_a_snapshot_and_the_difference_is_emitted(
    autojump_clock: MockClock,
) -> None:
    seen: list[Event | Value] = []
    config = replace(CONFIG, snapshot_threshold=10)
    async with running(config=config) as backend, trio.open_nursery() as nursery:
        await backend.propose(register("app_old"))
        await led_by(backend, "node-2")
        isolate(backend, "node-1")
        await trio.sleep(2)
        cluster = backend.cluster
        leader = next(name for name, member in cluster.members.items() if member.raft.role == "Leader")
        gone = DeleteMetric(name="app_old", at=1.0)
        commands: list[MetricCommand] = [register("app_new"), gone, *[count("app_new")] * 20]
        cluster.propose(leader, 99, WriteCommands(tuple(encode_command(command) for command in commands)))
        await trio.sleep(2)
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        isolate(backend)
        await ready(backend)
        await trio.sleep(1)
        assert backend.metrics.view("app_new").value == 20
        nursery.cancel_scope.cancel()
    snapshots = [event.snapshot for event in seen if isinstance(event, SnapshotTaken)]
    assert [snapshot.type for snapshot in snapshots[:2]] == ["received", "restored"]
    defined = {
        name: view
        for event in seen
        if isinstance(event, MetricsDefined)
        for name, view in event.metrics.items()
    }
    assert defined["app_old"] is None
    assert defined["app_new"] is not None


@pytest.mark.parametrize("leader", ["node-1", "node-2", "node-3"])
async def test_a_full_disk_refuses_writes_and_nothing_of_them_remains(
    autojump_clock: MockClock, leader: str
) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await backend.propose(register())
        await led_by(backend, leader)
        await backend.propose(count())
        store.full = True
        with pytest.raises(StoreFull):
            await backend.propose(count())
        with pytest.raises((StoreFull, NoLeader)):
            await backend.propose(count())
        with pytest.raises(StoreFull):
            await backend.reset_uptime()
        assert backend.metrics.view("app_requests").value == 1, "what is committed is shown all the while"
        store.full = False
        await ready(backend)
        assert backend.metrics.view("app_requests").value == 1
        await backend.propose(count())
    async with running(store) as backend:
        await ready(backend)
        assert backend.metrics.view("app_requests").value == 2


async def test_a_reset_that_a_full_disk_refuses_has_not_happened(autojump_clock: MockClock) -> None:
    store = MemoryStore()

    def recorded(backend: SimulatedBackend) -> tuple[list[str], list[str]]:
        uptime = backend.uptime.history(Instant(0.0, trio.current_time()))
        snapshots = backend.snapshots.history()
        return [each.timestamp for each in uptime.recent_events], [each.id for each in snapshots.snapshots]

    async with running(store) as backend:
        await backend.propose(register())
        await backend.take_snapshot()
        await trio.sleep(20)
        before = recorded(backend)
        store.full = True
        for reset in (backend.reset_uptime, backend.reset_snapshots):
            with pytest.raises(StoreFull):
                await reset()
        store.full = False
        await trio.sleep(20)
        after = recorded(backend)
        assert [more[-len(each) :] for more, each in zip(after, before, strict=True)] == list(before)
    async with running(store) as backend:
        again = recorded(backend)
        assert [more[-len(each) :] for more, each in zip(again, before, strict=True)] == list(before)
        await backend.reset_uptime()
        await backend.reset_snapshots()
        assert len(recorded(backend)[0]) == 1
        assert recorded(backend)[1] == []
        await trio.sleep(20)
    async with running(store) as backend:
        assert recorded(backend)[1] == []
        assert len(recorded(backend)[0]) <= 4


async def test_a_disk_that_is_full_for_long_costs_no_busy_loop_and_few_log_lines(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await ready(backend)
        store.full = True
        with pytest.raises((StoreFull, NoLeader)):
            await backend.propose(register())
        await trio.sleep(60)
        store.full = False
        await ready(backend)
        await backend.propose(register())
    refusals = [record for record in caplog.records if "refuses" in record.getMessage()]
    assert len(refusals) == 1


class NotForgetting(MemoryStore):
    """While `keeps` it refuses, in no time, to forget a member."""

    def __init__(self) -> None:
        super().__init__(seconds=0.0)
        self.keeps = False
        self.refused = 0

    async def save(self, changes: Sequence[Change]) -> None:
        if self.keeps and any(isinstance(change, MemberForgotten) for change in changes):
            self.refused += 1
            assert self.refused < 1000, "tried again without end"
            await trio.lowlevel.checkpoint()
            raise StoreFull("the disk is full")
        await super().save(changes)


async def test_a_member_that_the_disk_does_not_forget_is_tried_again_now_and_then(
    autojump_clock: MockClock,
) -> None:
    store = NotForgetting()
    async with running(store) as backend:
        await ready(backend)
        store.keeps = True
        await backend.remove_peer("node-3")
        await trio.sleep(60)
        assert 10 < store.refused < 1000
        store.keeps = False
        await trio.sleep(2)
        assert "node-3" not in store.load().members


async def test_a_snapshot_that_does_not_fit_is_reported_as_failed(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await backend.propose(register())
        store.full = True
        with pytest.raises(StoreFull):
            await backend.take_snapshot()
        store.full = False
        await ready(backend)
        assert (await backend.take_snapshot()).index > 2
        assert backend.metrics.view("app_requests").value == 0


async def test_a_slow_disk_deposes_no_leader(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await led_by(backend, "node-1")
        term = backend.status().node.term
        store.seconds = 2.0
        with trio.fail_after(20):
            committed = Committed(0, 0)
            while committed.index == 0:
                try:
                    committed = await backend.propose(register())
                except OutcomeUnknown:
                    store.seconds = 0.5
        store.seconds = 0.01
        await trio.sleep(3)
        assert (backend.status().node.term, backend.status().leader.id) == (term, "node-1")


async def test_two_members_need_each_other(autojump_clock: MockClock) -> None:
    async with running(config=TWO) as backend:
        await ready(backend)
        isolate(backend, "node-2")
        with pytest.raises((NoLeader, OutcomeUnknown)):
            await backend.propose(register())
        isolate(backend)
        await ready(backend)


async def test_a_process_that_stood_still_holds_no_election(autojump_clock: MockClock) -> None:
    """As after SIGSTOP: only the clock has advanced."""
    store = MemoryStore()
    async with running(store) as backend:
        await led_by(backend, "node-1")
        term = backend.status().node.term
        store.seconds = 30.0  # nothing of the cluster moves while its driver waits
        with pytest.raises(OutcomeUnknown):
            await backend.propose(register())
        await trio.sleep(27)
        store.seconds = 0.001
        await trio.sleep(100)
        assert backend.status().node.term == term
        assert backend.metrics.view("app_requests").value == 0


def open_requests() -> set[int]:
    gc.collect()
    return {id(each) for each in gc.get_objects() if isinstance(each, ClientRequest | SnapshotRequest)}


async def test_a_caller_that_gives_up_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    before = open_requests()
    async with running() as backend:
        await led_by(backend, "node-2")
        for _ in range(20):
            with trio.move_on_after(0.001):
                await backend.propose(register())
            with trio.move_on_after(0.0001):
                await backend.take_snapshot()
        await trio.sleep(6)
    assert open_requests() <= before


async def test_a_learner_that_does_not_catch_up_is_refused_as_leader(autojump_clock: MockClock) -> None:
    async with running() as backend:
        await ready(backend)
        await backend.add_peer(Peer("node-4", "127.0.0.1:7004"))
        isolate(backend, "node-4")
        with pytest.raises(Conflict, match="A learner cannot lead") as raised:
            await backend.transfer_leadership("node-4")
        assert raised.value.field == "target"
        assert backend.status().leader.id
        isolate(backend)
        while "node-4" in backend.cluster.members["node-1"].raft.log.members.learners:  # noqa: ASYNC110 (no event for it)
            await trio.sleep(0.1)
        assert await backend.transfer_leadership("node-4") == "node-4"


async def lose(backend: SimulatedBackend, how: str) -> None:
    """Have node-2 lose its leadership in this way."""
    cluster = backend.cluster
    match how:
        case "transfer":
            await backend.transfer_leadership("node-3")
        case "stopped":
            cluster.crash("node-2")
        case "paused":
            cluster.faults.pause("node-2")
        case "unreachable":
            cluster.net.partition([["node-2"]])
        case "stepped_down":
            cluster.net.partition([["node-1"], ["node-3"]])
            while cluster.members["node-2"].raft.role == "Leader":  # noqa: ASYNC110 (no event for it)
                await trio.sleep(0.01)
            cluster.net.partition([])
        case _:
            await backend.remove_peer("node-2")


@pytest.mark.parametrize("cause", ["transfer", "stopped", "unreachable", "stepped_down", "removed"])
async def test_a_state_change_has_the_cause_of_the_loss(autojump_clock: MockClock, cause: str) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await led_by(backend, "node-2")
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await lose(backend, cause)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    changes = [event for event in seen if isinstance(event, StateChanged)]
    assert changes
    assert changes[-1].leader not in {"", "node-2"} or cause == "stepped_down"
    assert {change.cause for change in changes if change.leader != "node-2"} == {cause}
    assert all(change.observed_at is not None for change in changes)


@pytest.mark.parametrize(("leader", "cause"), [("node-1", "stopped"), ("node-2", "unknown")])
async def test_a_crash_of_this_node_does_not_say_that_another_leader_has_stopped(
    autojump_clock: MockClock, leader: str, cause: str
) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await led_by(backend, leader)
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        backend.cluster.crash("node-1")
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    (change,) = [event for event in seen if isinstance(event, StateChanged)]
    assert (change.new_state, change.leader, change.cause) == ("Down", "", cause)


@pytest.mark.parametrize("fault", ["stopped", "paused", "unreachable"])
async def test_a_peer_that_does_not_answer_is_reported_with_its_cause(
    autojump_clock: MockClock, fault: str
) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await led_by(backend, "node-1")
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await lose(backend, fault)
        await trio.sleep(6)
        nursery.cancel_scope.cancel()
    (change,) = [event for event in seen if isinstance(event, PeerChanged)]
    assert (change.event_type, change.peer_id) == ("unhealthy", "node-2")
    assert change.cause == ("unreachable" if fault == "unreachable" else "stopped")
    assert change.evidence is not None
    assert change.evidence["last_answer_ms"] > 500


async def test_a_lost_leader_comes_with_the_evidence(autojump_clock: MockClock) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await led_by(backend, "node-2")
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await lose(backend, "paused")
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    changes = [event for event in seen if isinstance(event, StateChanged)]
    assert changes
    for change in changes:
        assert change.cause == "stopped"
        assert change.evidence is not None
        assert change.evidence.keys() >= {"last_answer_ms", "members_reached", "quorum"}


FAULTS: dict[str, tuple[FaultChange, str, str]] = {
    "crash": (FaultChange(crashed=("node-2",)), "stopped", "members_reached"),
    "pause": (FaultChange(paused=("node-2",)), "stopped", "members_reached"),
    "isolation": (FaultChange(partitions=(("node-2",),)), "unreachable", "members_reached"),
    "split": (FaultChange(partitions=(("node-1",), ("node-2",), ("node-3",))), "unreachable", "quorum"),
    "loss": (FaultChange(loss=1.0), "stepped_down", "loss"),
    "latency": (FaultChange(latency_ms=5000.0), "stepped_down", "latency_ms"),
    "disks": (
        FaultChange(disk_latency_ms={"node-2": 3000.0, "node-1": 3000.0, "node-3": 3000.0}),
        "stepped_down",
        "disk_latency_ms",
    ),
    "clock": (FaultChange(clock_offset_ms={"node-2": 60_000.0}), "stepped_down", "clock_offset_ms"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_of_the_leader_is_in_the_stream_with_its_cause(
    autojump_clock: MockClock, fault: str
) -> None:
    change, cause, shown = FAULTS[fault]
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await backend.propose(register())
        await led_by(backend, "node-2")
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await backend.simulation.change(change)
        for _ in range(3):  # a slow disk shows only where there is something to write
            with suppress(NoLeader, OutcomeUnknown):
                await backend.propose(count())
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    lost = next(event for event in seen if isinstance(event, StateChanged))
    assert lost.leader != "node-2"
    assert lost.cause == cause
    assert lost.evidence is not None
    assert shown in lost.evidence


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (FaultChange(crashed=("node-3",)), "stopped"),
        (FaultChange(paused=("node-3",)), "stopped"),
        (FaultChange(partitions=(("node-3",),)), "unreachable"),
        (FaultChange(loss=1.0), "unreachable"),
        (FaultChange(latency_ms=5000.0), "unreachable"),
    ],
    ids=["crash", "pause", "isolation", "loss", "latency"],
)
async def test_every_fault_of_a_peer_is_in_the_stream_with_its_cause(
    autojump_clock: MockClock, change: FaultChange, cause: str
) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await led_by(backend, "node-2")
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await backend.simulation.change(change)
        await trio.sleep(8)
        nursery.cancel_scope.cancel()
    unhealthy = [event for event in seen if isinstance(event, PeerChanged) and event.peer_id == "node-3"]
    assert [event.event_type for event in unhealthy] == ["unhealthy"]
    assert unhealthy[0].cause == cause


async def test_calls_from_before_its_return_do_not_make_a_peer_unhealthy(autojump_clock: MockClock) -> None:
    """A call times out after a second: the peer is back by then, and has answered later calls. The node that made
    them leads no more, and has made few since."""
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await led_by(backend, "node-1")
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        await backend.simulation.change(FaultChange(crashed=("node-3",)))
        await trio.sleep(0.6)
        await backend.simulation.change(FaultChange(crashed=()))
        await trio.sleep(0.3)
        assert await backend.transfer_leadership("node-2") == "node-2"
        await trio.sleep(3)
        (errors,) = [peer.latency.error_count for peer in backend.status().peers if peer.id == "node-3"]
        nursery.cancel_scope.cancel()
    assert errors > 0
    assert [event for event in seen if isinstance(event, PeerChanged)] == []


async def test_this_nodes_own_leadership_has_a_cause_too(autojump_clock: MockClock) -> None:
    seen: list[Event | Value] = []
    async with running() as backend, trio.open_nursery() as nursery:
        await led_by(backend, "node-1")
        await nursery.start(lambda task_status: follow(backend, seen, task_status))
        isolate(backend, "node-1")
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    (change,) = [each for each in seen if isinstance(each, StateChanged) and each.old_state == "Leader"]
    assert (change.new_state, change.leader, change.cause) == ("Follower", "", "stepped_down")
