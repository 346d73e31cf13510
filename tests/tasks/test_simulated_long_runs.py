"""The simulated backend under load that does not end, and over long times."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import MockClock

from heliosd.cluster.simulated.bootstrap import TICKS_PER_SECOND
from heliosd.protocol.views.simulation import FaultChange
from heliosd.raft.simulation.observations import EntryApplied
from tests.support.simulated_harness import MemoryStore, count, ready, register, running


async def test_what_was_applied_is_forgotten_while_another_member_leads_and_writes_overlap_for_good(
    autojump_clock: MockClock,
) -> None:
    async with running() as backend, trio.open_nursery() as nursery:
        await ready(backend)
        assert await backend.transfer_leadership("node-2") == "node-2"
        await backend.propose(register())
        gc.collect()
        before = {id(each) for each in gc.get_objects() if isinstance(each, EntryApplied)}
        for _ in range(1000):
            nursery.start_soon(backend.propose, count())
            await trio.sleep(0.002)
        gc.collect()
        kept = [
            each for each in gc.get_objects() if isinstance(each, EntryApplied) and id(each) not in before
        ]
        assert backend.metrics.view("app_requests").value > 900
        assert len(kept) < 100


EVERYONE = ("node-1", "node-2", "node-3")


@pytest.mark.parametrize(
    "fault", [FaultChange(crashed=EVERYONE), FaultChange(paused=EVERYONE)], ids=["crashed", "paused"]
)
async def test_while_no_member_runs_the_daemon_is_still_recorded_as_alive(
    autojump_clock: MockClock, fault: FaultChange
) -> None:
    store = MemoryStore()
    async with running(store) as backend:
        await ready(backend)
        await backend.simulation.change(fault)
        await trio.sleep(5)
        saves = len(store.saves)
        await trio.sleep(100)
        assert len(store.saves) - saves >= 9


async def test_a_cluster_without_running_members_follows_the_clock(autojump_clock: MockClock) -> None:
    """So a heal has no more than a second to make up for, and all the members start at the present time."""
    async with running() as backend:
        await ready(backend)
        await backend.simulation.change(FaultChange(crashed=EVERYONE))
        started, at = backend.cluster.now, trio.current_time()
        await trio.sleep(3600)
        passed = (backend.cluster.now - started) / TICKS_PER_SECOND
        assert abs(passed - (trio.current_time() - at)) < 2
        await backend.simulation.change(FaultChange(crashed=()))
        await trio.sleep(5)
        assert backend.not_ready() is None


async def test_a_write_that_was_lost_on_its_way_is_not_repeated_once_its_client_has_gone(
    autojump_clock: MockClock,
) -> None:
    async with running() as backend:
        await ready(backend)
        assert await backend.transfer_leadership("node-2") == "node-2"
        await backend.propose(register())
        backend.cluster.net.blocked = frozenset({("node-1", "node-2")})
        with trio.move_on_after(0.1):
            await backend.propose(count())
        await trio.sleep(2)
        backend.cluster.net.blocked = frozenset()
        await trio.sleep(2)
        assert backend.status().leader.id == "node-2"
        assert backend.metrics.view("app_requests").value == 0
