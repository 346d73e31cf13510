"""The event loop's lag: how long a task that is ready to run waits while other tasks run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import trio

from heliosd.histogram import Histogram

INTERVAL_SECONDS = 0.1
TIMER_SECONDS = 0.001
"""The kernel rounds timers up to whole milliseconds, so an idle loop is late by up to so much."""
AT_ONCE_SECONDS = 0.0001
"""A wait for sockets that was shorter found some of them ready."""
MAX_MOMENTS = 600
"""Of a longer stall or sleep only the last minute is observed."""


class LoopLag(trio.abc.Instrument):
    """Observes, every `INTERVAL_SECONDS`, how long a task that is ready to run at that moment waits, in seconds.

    Such a task runs in the next turn of the loop, in any place among others: it counts until the end of that turn.
    Where no other task is ready by then, it would run at once. As an instrument this sees every turn and wakes the
    loop for none: the moments of a loop that slept are observed when it wakes.
    """

    def __init__(self, lag: Histogram, clock: Callable[[], float] = time.monotonic) -> None:
        self._lag = lag
        self._clock = clock
        self._moment = self._turn_ended = clock()
        self._waiting: Sequence[float] = ()
        """The moments whose tasks run in the next turn, or in the present one."""

    def before_io_wait(self, timeout: float) -> None:
        del timeout
        now = self._turn_ended = self._clock()
        if self._waiting:
            self._observe(self._waiting, now)
            self._waiting = ()
        if now >= self._moment:
            self._waiting = self._passed(now)

    def after_io_wait(self, timeout: float) -> None:
        now = self._clock()
        slept = bool(timeout) and now - self._turn_ended > AT_ONCE_SECONDS
        if slept and self._waiting:
            self._observe(self._waiting, self._turn_ended)
            self._waiting = ()
        if now >= self._moment:
            should_run = self._turn_ended + timeout + (TIMER_SECONDS if timeout else 0.0)
            number = int((now - self._moment) / INTERVAL_SECONDS) + 1
            if number <= MAX_MOMENTS and self._moment + (number - 1) * INTERVAL_SECONDS <= should_run:
                # It slept through all of them. An idle daemon gets here ten times a second.
                self._moment += number * INTERVAL_SECONDS
                self._lag.observe(0.0, times=number)
                return
            passed = self._passed(now)
            asleep = sum(moment <= should_run for moment in passed)
            self._lag.observe(0.0, times=asleep)
            self._waiting = [*self._waiting, *passed[asleep:]]

    def _passed(self, now: float) -> list[float]:
        """The moments up to now, at most `MAX_MOMENTS`."""
        number = int((now - self._moment) / INTERVAL_SECONDS) + 1
        first, self._moment = self._moment, self._moment + number * INTERVAL_SECONDS
        return [first + place * INTERVAL_SECONDS for place in range(max(0, number - MAX_MOMENTS), number)]

    def _observe(self, moments: Sequence[float], until: float) -> None:
        for moment in moments:
            self._lag.observe(until - moment)


async def watch(lag: Histogram) -> None:
    """Observe the loop's lag until cancelled."""
    instrument = LoopLag(lag)
    trio.lowlevel.add_instrument(instrument)
    try:
        await trio.sleep_forever()
    finally:
        trio.lowlevel.remove_instrument(instrument)
