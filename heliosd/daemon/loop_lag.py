"""The event loop's lag: how long a task that is ready to run waits while another task runs."""

from __future__ import annotations

import trio

from heliosd.histogram import Histogram

INTERVAL_SECONDS = 0.1
TIMER_SECONDS = 0.001
"""The kernel rounds timers up to whole milliseconds, so an idle loop is late by up to so much."""


async def watch(lag: Histogram) -> None:
    """Observe the loop's lag in seconds, ten times a second, until cancelled.

    The lag is the longer of two: how late a timer fired, less `TIMER_SECONDS`, and how long the loop's next turn
    takes.
    """
    while True:
        due = trio.current_time() + INTERVAL_SECONDS
        await trio.sleep_until(due)
        woken = trio.current_time()
        await trio.lowlevel.checkpoint()
        lag.observe(max(trio.current_time() - woken, woken - due - TIMER_SECONDS))
