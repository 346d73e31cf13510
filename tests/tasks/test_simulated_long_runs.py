"""The simulated backend under load that does not end, and over long times."""

from __future__ import annotations

import gc

import trio
from trio.testing import MockClock

from heliosd.raft.simulation.observations import EntryApplied
from tests.support.simulated_harness import count, ready, register, running


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
