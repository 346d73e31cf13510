"""The ticker: puts a tick into the hub's inbox at each interval for status, latency and uptime."""

from __future__ import annotations

from collections.abc import Callable

import trio

from heliosd.config.model import Settings, WebSocketConfig
from heliosd.hub.inbox import HubItem, Tick

INTERVALS: dict[Tick, Callable[[WebSocketConfig], float]] = {
    Tick.STATUS: lambda config: config.status_interval,
    Tick.LATENCY: lambda config: config.latency_interval,
    Tick.UPTIME: lambda config: config.uptime_interval,
}


class _Change:
    """Wakes the tasks that wait for a change of the configuration."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()


async def tick_all(settings: Settings, hub: trio.MemorySendChannel[HubItem]) -> None:
    """Send each tick into `hub` at its interval, until cancelled. A changed interval holds at once."""
    change = _Change()
    settings.on_change(change.notify)
    async with trio.open_nursery() as nursery:
        for tick in INTERVALS:
            nursery.start_soon(_keep, tick, settings, change, hub.clone())


async def _keep(
    tick: Tick, settings: Settings, change: _Change, hub: trio.MemorySendChannel[HubItem]
) -> None:
    async with hub:
        last = trio.current_time()
        while True:
            # From the last due time, so that ticks do not drift; after a pause (SIGSTOP) none is made up for.
            due = max(last + INTERVALS[tick](settings.current.websocket), trio.current_time())
            with trio.move_on_at(due) as patience:
                await change.wait()
            if patience.cancelled_caught:
                last = due
                await hub.send(tick)
