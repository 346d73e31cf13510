"""The loop's lag: what one long step costs everybody else is seen, and an idle loop has none."""

from __future__ import annotations

import time

import trio

from heliosd.daemon import loop_lag
from heliosd.histogram import Histogram
from heliosd.hub.counters import LAG_BUCKETS


async def observed(seconds: float, *, block: float = 0.0) -> Histogram:
    lag = Histogram(LAG_BUCKETS)
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop_lag.watch, lag)
            while block:
                await trio.sleep(block)
                time.sleep(block)
    return lag


async def test_a_step_that_blocks_shows_in_the_lag() -> None:
    lag = await observed(1.0, block=0.2)
    assert sum(lag.counts[-4:]) > 0, "0.05 s and more"


async def test_a_loop_with_nothing_to_do_has_next_to_none() -> None:
    lag = await observed(2.0)
    assert lag.count >= 10
    assert sum(lag.counts[:5]) > lag.count / 2, "most within a millisecond, also on a busy machine"
