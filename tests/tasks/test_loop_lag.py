"""The loop's lag: one long step shows in it, and an idle loop has none."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from heliosd.daemon import loop_lag
from heliosd.histogram import Histogram
from heliosd.hub.counters import LAG_BUCKETS


async def observed(clock: MockClock, *, step_seconds: float = 0.0) -> Histogram:
    """The lag of ten seconds in which a task makes steps that take so long."""
    lag = Histogram(LAG_BUCKETS)
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop_lag.watch, lag)
            while step_seconds:
                await trio.sleep(step_seconds)
                clock.jump(step_seconds)
            await trio.sleep_forever()
    return lag


async def test_a_step_that_blocks_shows_in_the_lag(autojump_clock: MockClock) -> None:
    lag = await observed(autojump_clock, step_seconds=0.2)
    assert sum(lag.counts[-4:]) > 0, "0.05 s and more"


async def test_an_idle_loop_has_no_lag(autojump_clock: MockClock) -> None:
    lag = await observed(autojump_clock)
    assert lag.count >= 90
    assert lag.counts[0] == lag.count
