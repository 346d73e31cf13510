"""The loop's lag: one long step shows in it, and an idle loop has none and is not woken for it."""

from __future__ import annotations

import pytest
import trio

from heliosd.daemon.loop_lag import INTERVAL_SECONDS, MAX_MOMENTS, LoopLag
from heliosd.histogram import Histogram
from heliosd.hub.counters import LAG_BUCKETS


class Loop:
    """A loop as its instrument sees it, on a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lag = Histogram(LAG_BUCKETS)
        self._instrument = LoopLag(self.lag, lambda: self.now)

    def turn(self, *, waits: float, works: float, late: float = 0.0, timeout: float | None = None) -> None:
        timeout = waits if timeout is None else timeout
        self._instrument.before_io_wait(timeout)
        self.now += waits + late
        self._instrument.after_io_wait(timeout)
        self.now += works

    def observed(self) -> float:
        """The sum of all lags, in seconds."""
        self._instrument.before_io_wait(0.0)
        return self.lag.sum

    def slow(self) -> int:
        """Observations of 0.05 s and more."""
        return sum(self.lag.counts[-4:])


def test_a_step_that_blocks_shows_in_the_lag_for_each_moment_in_it() -> None:
    loop = Loop()
    for _ in range(50):
        loop.turn(waits=0.05, works=0.0001)
    loop.turn(waits=0.05, works=0.2)
    for _ in range(50):
        loop.turn(waits=0.05, works=0.0001)
    assert loop.slow() in {1, 2}  # one of its two moments may be near its end
    assert 0.2 <= loop.lag.sum <= 0.31


def test_what_is_ready_waits_for_the_turn_that_runs_and_until_the_end_of_the_next() -> None:
    loop = Loop()
    loop.turn(waits=0.099, works=0.011)
    loop.turn(waits=0.0, works=0.02)
    loop.turn(waits=1.0, works=0.0)
    assert loop.observed() == pytest.approx(0.01 + 0.02)


def test_where_nothing_else_is_ready_it_runs_when_the_turn_ends() -> None:
    loop = Loop()
    loop.turn(waits=0.099, works=0.011)
    loop.turn(waits=1.0, works=0.0)
    assert loop.observed() == pytest.approx(0.01)


def test_a_loop_whose_sockets_are_always_ready_is_as_late_as_one_whose_tasks_are() -> None:
    lags = []
    for waits in (0.00001, 0.0):
        loop = Loop()
        for _ in range(5000):
            loop.turn(waits=waits, works=0.0213, timeout=0.5 if waits else 0.0)
        lags.append(loop.observed() / loop.lag.count)
    assert lags == pytest.approx([1.5 * 0.0213] * 2, rel=0.05)


def test_no_moment_is_lost_when_the_process_stands_still_while_it_looks_for_sockets() -> None:
    loop = Loop()
    loop.turn(waits=0.01, works=0.15)
    loop.turn(waits=0.0, works=0.0, late=0.3)
    loop.turn(waits=1.0, works=0.0)
    assert loop.lag.count == 15


def test_a_late_timer_is_lag() -> None:
    loop = Loop()
    loop.turn(waits=0.35, works=0.01, late=0.4)
    loop.turn(waits=0.3, works=0.0)
    assert loop.slow() == 4
    assert loop.observed() == pytest.approx(0.36 + 0.26 + 0.16 + 0.06, abs=0.001)


def test_of_a_process_that_stood_still_for_a_day_the_last_minute_is_observed() -> None:
    loop = Loop()
    loop.turn(waits=0.3, works=86400.0)
    loop.turn(waits=0.3, works=0.0)
    assert loop.slow() in {MAX_MOMENTS - 1, MAX_MOMENTS}
    assert loop.observed() == pytest.approx(60.0 * 600 / 2, rel=0.01)


def test_an_idle_loop_has_no_lag_and_ten_observations_a_second() -> None:
    loop = Loop()
    for _ in range(20):
        loop.turn(waits=5.0, works=0.00001)
    assert loop.lag.counts[0] == loop.lag.count
    assert abs(loop.lag.count - (loop.now - 100.0) / INTERVAL_SECONDS) <= 1


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
