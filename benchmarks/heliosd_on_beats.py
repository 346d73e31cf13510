"""heliosd as its users run it, except that its beats can be told from outside: for measuring in lockstep.

    BENCH_BEATS=FD python -m benchmarks.heliosd_on_beats serve --config FILE

Until the first byte comes through that descriptor, the daemon's own broadcaster runs. From then on each byte is one
status beat into the hub's inbox, those that come together in one go, and the loop's lag is looked at more often: a
window of a second would have twenty looks in it, too few for a p99.
"""

from __future__ import annotations

import os
import sys

import trio

from heliosd import broadcaster, daemon, loop_lag
from heliosd.cli.main import main
from heliosd.config import Settings
from heliosd.hub.inbox import Beat, Item

MAX_BEATS = 64
LAG_INTERVAL_SECONDS = 0.006


async def broadcast(settings: Settings, hub: trio.MemorySendChannel[Item]) -> None:
    """In place of `heliosd.broadcaster.broadcast`."""
    beats = int(os.environ["BENCH_BEATS"])
    os.set_blocking(beats, False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broadcaster.broadcast, settings, hub)
        await trio.lowlevel.wait_readable(beats)
        nursery.cancel_scope.cancel()
    vars(loop_lag)["INTERVAL_SECONDS"] = LAG_INTERVAL_SECONDS
    while True:
        await trio.lowlevel.wait_readable(beats)
        due = os.read(beats, MAX_BEATS)
        if not due:
            return
        for _ in due:
            try:
                hub.send_nowait(Beat.STATUS)
            except trio.WouldBlock:
                await hub.send(Beat.STATUS)


if __name__ == "__main__":
    vars(daemon)["broadcast"] = broadcast
    sys.exit(main())
