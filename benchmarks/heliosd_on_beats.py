"""heliosd as its users run it, except that its ticks can be driven from outside: for measuring in lockstep.

    BENCH_BEATS=FD python -m benchmarks.heliosd_on_beats serve --config FILE

Until the first byte comes through that descriptor, the daemon's own ticker runs. From then on each byte is one
status tick into the hub's inbox, those that come together in one go.

In a flood of them the loop's lag is sampled: how long a task that is due at some moment waits for its turn. (The
daemon's own metric looks at ten moments a second: too few for a p99 of some seconds.)
"""

from __future__ import annotations

import os
import sys
from math import inf

import trio

from heliosd.cli.main import main
from heliosd.config.model import Settings
from heliosd.daemon import loop_lag, ticker, tree
from heliosd.histogram import Histogram
from heliosd.hub.inbox import HubItem, Tick

MAX_BEATS = 64
FLOOD_SECONDS = 0.09
"""Between two beats: fewer are a flood."""
SAMPLE_SECONDS = 0.005


class Ticks:
    """The ticks from outside, and how soon they follow one another."""

    def __init__(self) -> None:
        self._last = -inf
        self._flood = trio.Event()

    async def tick_all(self, settings: Settings, hub: trio.MemorySendChannel[HubItem]) -> None:
        """In place of `heliosd.daemon.ticker.tick_all`."""
        beats = int(os.environ["BENCH_BEATS"])
        os.set_blocking(beats, False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ticker.tick_all, settings, hub)
            await trio.lowlevel.wait_readable(beats)
            nursery.cancel_scope.cancel()
        while True:
            await trio.lowlevel.wait_readable(beats)
            before, self._last = self._last, trio.current_time()
            if self._last - before < FLOOD_SECONDS:
                self._flood.set()
            due = os.read(beats, MAX_BEATS)
            if not due:
                return
            for _ in due:
                try:
                    hub.send_nowait(Tick.STATUS)
                except trio.WouldBlock:
                    await hub.send(Tick.STATUS)

    async def sample_lag(self, lag: Histogram) -> None:
        """In place of `heliosd.daemon.loop_lag.watch`. A sample is the longer of two: how late its timer came, and
        how long one turn of the loop takes from there."""
        while True:
            await self._flood.wait()
            due = trio.current_time() + SAMPLE_SECONDS
            await trio.sleep_until(due)
            woken = trio.current_time()
            await trio.lowlevel.checkpoint()
            lag.observe(max(trio.current_time() - woken, woken - due - loop_lag.TIMER_SECONDS))
            if woken - self._last > FLOOD_SECONDS:
                self._flood = trio.Event()


if __name__ == "__main__":
    ticks = Ticks()
    vars(tree)["tick_all"] = ticks.tick_all
    vars(loop_lag)["watch"] = ticks.sample_lag
    sys.exit(main())
