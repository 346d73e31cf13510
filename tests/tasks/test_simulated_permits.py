"""Permits of the simulated cluster, where the asker gets no answer."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.errors import OutcomeUnknown
from heliosd.protocol.views.simulation import FaultChange
from tests.support.simulated_harness import CONFIG, ready, running


@pytest.mark.parametrize("patience", [0.02, 0.06, 0.12, 0.17])
async def test_a_permit_whose_asker_has_gone_keeps_nobody_else_waiting(
    autojump_clock: MockClock, patience: float
) -> None:
    async with running() as backend:
        await ready(backend)
        assert await backend.transfer_leadership("node-2") == "node-2"
        await backend.simulation.change(FaultChange(latency_ms=50.0))
        await trio.sleep(1)
        with trio.move_on_after(patience) as asker:
            await backend.permits.grant("node-3", "ann", 600)
        assert asker.cancelled_caught
        await trio.sleep(1)
        assert await backend.permits.current() is None
        permit = await backend.permits.grant("node-1", "bob", 600)
        assert await backend.permits.current() == permit


@pytest.mark.parametrize("healed_after", [4.8, 7.0, 60.0])
async def test_a_permit_of_unknown_outcome_is_given_back_if_it_comes_to_be(
    autojump_clock: MockClock, healed_after: float
) -> None:
    async with running(config=replace(CONFIG, election_timeout=30.0)) as backend:
        with trio.fail_after(100):
            while backend.not_ready() is not None:  # noqa: ASYNC110 (a backend has no event for it)
                await trio.sleep(1)
        assert await backend.transfer_leadership("node-1") == "node-1"
        await backend.simulation.change(FaultChange(latency_ms=50.0))
        await trio.sleep(1)

        async def ask() -> None:
            asked = trio.current_time()
            with pytest.raises(OutcomeUnknown):
                await backend.permits.grant("node-3", "ann", 600)
            assert trio.current_time() - asked <= 5

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.02)
            backend.cluster.net.blocked = frozenset({("node-1", "node-2"), ("node-1", "node-3")})
            await trio.sleep(healed_after)
            backend.cluster.net.blocked = frozenset()
        await trio.sleep(5)
        assert await backend.permits.current() is None
