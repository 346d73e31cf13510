"""Whether a member was restarted, by the start and the clock that it shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.etcd.process_seen import ProcessSeen

LIVED = st.floats(10, 1e7)
AWAY = st.floats(0, 1e6)
STEP = st.floats(-1e8, 1e8)
UNKNOWN = float("-inf")
BOOT = 1.7e9


def seen(started: float, clock: float, at: float) -> ProcessSeen:
    """What is shown at `at` (monotonic) by a process that has started at `started`, with a clock that is `clock`
    ahead of it. Both times are rounded as on Linux."""
    return ProcessSeen(int(BOOT + clock) + started, float(int(BOOT + clock + at)), at)


@given(st.floats(0, 1e7), LIVED, AWAY, STEP, st.booleans())
def test_a_clock_that_is_set_is_no_restart(
    uptime: float, lived: float, away: float, step: float, end_seen: bool
) -> None:
    at = uptime + lived
    before = seen(0.0, 0.25, uptime)
    after = seen(0.0, 0.25 + step, at + away)
    assert not after.differs_from(before, at if end_seen else UNKNOWN)


@given(LIVED, AWAY, st.floats(0, 1), STEP, st.booleans())
def test_a_restart_is_one_whatever_the_clock_shows(
    lived: float, away: float, start: float, step: float, end_seen: bool
) -> None:
    before = seen(0.0, 0.25, 1.0)
    again = 1.0 + lived + away * start
    after = seen(again, 0.25 + step, 1.0 + lived + away)
    assert after.differs_from(before, 1.0 + lived if end_seen else UNKNOWN)


def test_a_process_that_ran_for_a_second_and_came_back_at_once_was_restarted() -> None:
    before, after = seen(0.0, 0.0, 0.5), seen(1.2, 0.0, 1.4)
    assert after.differs_from(before, 1.0)


def test_without_the_time_of_the_answer_only_another_start_is_a_restart() -> None:
    before = ProcessSeen(BOOT, None, 1.0)
    assert not ProcessSeen(BOOT + 1.0, None, 100.0).differs_from(before, 99.0)
    assert ProcessSeen(BOOT + 50.0, None, 100.0).differs_from(before, 99.0)
