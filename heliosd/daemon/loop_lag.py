"""How long a task that could run has to wait for its turn: what a long synchronous step does to everybody else."""

from __future__ import annotations

import trio

from heliosd.histogram import Histogram

INTERVAL_SECONDS = 0.1
TIMER_SECONDS = 0.001
"""The kernel's timers are rounded up to whole milliseconds, so a loop without anything to do is up to so late."""


async def watch(lag: Histogram) -> None:
    """Observe the loop's lag in seconds, ten times a second, until cancelled.

    Each time two things are looked at, and the longer counts: how late a timer came, beyond `TIMER_SECONDS`, and
    how long one turn of the loop takes from there.
    """
    while True:
        due = trio.current_time() + INTERVAL_SECONDS
        await trio.sleep_until(due)
        woken = trio.current_time()
        await trio.lowlevel.checkpoint()
        lag.observe(max(trio.current_time() - woken, woken - due - TIMER_SECONDS))
