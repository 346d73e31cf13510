"""The broadcaster: says on its beats that it is time for status, latency and uptime."""

from __future__ import annotations

from collections.abc import Callable

import trio

from .config import Settings, WebSocketConfig
from .hub.hub import Beat, Item

INTERVALS: dict[Beat, Callable[[WebSocketConfig], float]] = {
    Beat.STATUS: lambda config: config.status_interval,
    Beat.LATENCY: lambda config: config.latency_interval,
    Beat.UPTIME: lambda config: config.uptime_interval,
}


async def broadcast(settings: Settings, hub: trio.MemorySendChannel[Item]) -> None:
    """Send each beat into `hub` on its interval, until cancelled. A changed interval holds from the next beat."""
    async with trio.open_nursery() as nursery:
        for beat in INTERVALS:
            nursery.start_soon(_keep, beat, settings, hub.clone())


async def _keep(beat: Beat, settings: Settings, hub: trio.MemorySendChannel[Item]) -> None:
    async with hub:
        due = trio.current_time()
        while True:
            # From the last due time, so that beats do not drift; after a pause (SIGSTOP) none is made up for.
            due = max(due + INTERVALS[beat](settings.current.websocket), trio.current_time())
            await trio.sleep_until(due)
            await hub.send(beat)
