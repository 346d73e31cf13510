"""The event loop's lag: how long a task that is ready to run waits while another task runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from heliosd.histogram import Histogram

INTERVAL_SECONDS = 0.1
TIMER_SECONDS = 0.001
"""The kernel rounds timers up to whole milliseconds, so an idle loop is late by up to so much."""


class LoopLag(trio.abc.Instrument):
    """Observes the longest lag of every `INTERVAL_SECONDS`, in seconds.

    The lag is the longer of two: how long a turn of the loop takes, and how late its timer fired, less
    `TIMER_SECONDS`. As an instrument it sees every turn and wakes the loop for none: the intervals of a loop that
    slept are observed when it wakes.
    """

    def __init__(self, lag: Histogram, clock: Callable[[], float] = time.monotonic) -> None:
        self._lag = lag
        self._clock = clock
        self._turn_began = self._due = clock()
        self._interval_ends = self._turn_began + INTERVAL_SECONDS
        self._longest = 0.0

    def before_io_wait(self, timeout: float) -> None:
        now = self._clock()
        self._longest = max(self._longest, now - self._turn_began)
        if now >= self._interval_ends:
            self._lag.observe(self._longest)
            self._longest = 0.0
            slept = int((now - self._interval_ends) / INTERVAL_SECONDS)
            self._lag.observe(0.0, times=slept)
            self._interval_ends += (slept + 1) * INTERVAL_SECONDS
        self._due = now + timeout

    def after_io_wait(self, timeout: float) -> None:
        del timeout
        now = self._turn_began = self._clock()
        self._longest = max(self._longest, now - self._due - TIMER_SECONDS)


async def watch(lag: Histogram) -> None:
    """Observe the loop's lag until cancelled."""
    instrument = LoopLag(lag)
    trio.lowlevel.add_instrument(instrument)
    try:
        await trio.sleep_forever()
    finally:
        trio.lowlevel.remove_instrument(instrument)
