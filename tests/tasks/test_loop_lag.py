"""The loop's lag: one long step shows in it, and an idle loop has none and is not woken for it."""

from __future__ import annotations

import trio

from heliosd.daemon.loop_lag import INTERVAL_SECONDS, LoopLag
from heliosd.histogram import Histogram
from heliosd.hub.counters import LAG_BUCKETS


class Loop:
    """A loop as its instrument sees it, on a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lag = Histogram(LAG_BUCKETS)
        self._instrument = LoopLag(self.lag, lambda: self.now)

    def turn(self, *, waits: float, works: float, late: float = 0.0) -> None:
        self._instrument.before_io_wait(waits)
        self.now += waits + late
        self._instrument.after_io_wait(waits)
        self.now += works

    def slow(self) -> int:
        """Observations of 0.05 s and more."""
        return sum(self.lag.counts[-4:])


def test_a_step_that_blocks_shows_in_the_lag_once() -> None:
    loop = Loop()
    for _ in range(50):
        loop.turn(waits=0.05, works=0.0001)
    loop.turn(waits=0.05, works=0.2)
    for _ in range(50):
        loop.turn(waits=0.05, works=0.0001)
    assert loop.slow() == 1


def test_a_late_timer_is_lag() -> None:
    loop = Loop()
    loop.turn(waits=0.3, works=0.0, late=0.4)
    loop.turn(waits=0.3, works=0.0)
    assert loop.slow() == 1


def test_an_idle_loop_has_no_lag_and_ten_observations_a_second() -> None:
    loop = Loop()
    for _ in range(20):
        loop.turn(waits=5.0, works=0.00001)
    assert loop.lag.counts[0] == loop.lag.count
    asleep = loop.now - 100.0 - 5.0  # the last interval has not ended
    assert abs(loop.lag.count - asleep / INTERVAL_SECONDS) <= 1


async def test_it_wakes_no_loop() -> None:
    waits = 0

    class Counter(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal waits
            waits += 1

    lag = LoopLag(Histogram(LAG_BUCKETS))
    trio.lowlevel.add_instrument(lag)
    trio.lowlevel.add_instrument(counter := Counter())
    await trio.sleep(0.5)  # the time in which it would be woken
    trio.lowlevel.remove_instrument(counter)
    trio.lowlevel.remove_instrument(lag)
    assert waits <= 3
