"""heliosd as its users run it, except that its ticks can be driven from outside: for measuring in lockstep.

    BENCH_BEATS=FD python -m benchmarks.heliosd_on_beats serve --config FILE

Until the first byte comes through that descriptor, the daemon's own ticker runs. From then on each byte is one
status tick into the hub's inbox, those that come together in one go. In a flood of them the loop's lag is looked at
more often: eight seconds would have eighty looks in them, too few for a p99.
"""

from __future__ import annotations

import os
import sys
from math import inf

import trio

from heliosd.cli.main import main
from heliosd.config.model import Settings
from heliosd.daemon import loop_lag, ticker, tree
from heliosd.hub.inbox import HubItem, Tick

MAX_BEATS = 64
FLOOD_SECONDS = 0.09
"""Between two beats: fewer are a flood."""
LAG_SECONDS = 0.005


async def tick_all(settings: Settings, hub: trio.MemorySendChannel[HubItem]) -> None:
    """In place of `heliosd.daemon.ticker.tick_all`."""
    beats = int(os.environ["BENCH_BEATS"])
    os.set_blocking(beats, False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.tick_all, settings, hub)
        await trio.lowlevel.wait_readable(beats)
        nursery.cancel_scope.cancel()
    seldom = loop_lag.INTERVAL_SECONDS
    last = -inf
    while True:
        await trio.lowlevel.wait_readable(beats)
        flood = trio.current_time() - last < FLOOD_SECONDS
        last = trio.current_time()
        vars(loop_lag)["INTERVAL_SECONDS"] = LAG_SECONDS if flood else seldom
        due = os.read(beats, MAX_BEATS)
        if not due:
            return
        for _ in due:
            try:
                hub.send_nowait(Tick.STATUS)
            except trio.WouldBlock:
                await hub.send(Tick.STATUS)


if __name__ == "__main__":
    vars(tree)["tick_all"] = tick_all
    sys.exit(main())
