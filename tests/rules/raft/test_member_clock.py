"""The clock of a simulated member, set at random."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliosd.raft.simulation.member_clock import MemberClock

STEPS = st.lists(
    st.tuples(
        st.integers(0, 5_000_000),
        st.sampled_from([0.1, 0.5, 1.0, 1.01, 3.0, 10.0]),
        st.integers(0, 10_000_000),
    ),
    max_size=8,
)


def test_a_clock_that_was_not_set_is_right() -> None:
    clock = MemberClock()
    assert (clock.read(123), clock.when(123), clock.set_wrong) == (123, 123, False)


@given(STEPS, st.lists(st.integers(0, 3_000_000), max_size=5))
def test_it_never_goes_back_and_a_timer_fires_when_it_is_due_and_not_before(
    steps: list[tuple[int, float, int]], timers: list[int]
) -> None:
    clock, now, shown = MemberClock(), 0, 0
    for pause, rate, offset in steps:
        now += pause
        clock.set(now, rate=rate, offset=offset)
        assert clock.read(now) >= shown
        shown = clock.read(now)
        for ticks in timers:
            due = clock.when(shown + ticks)
            assert due >= now
            assert clock.read(due) >= shown + ticks
            assert due <= now or clock.read(due - 2) < shown + ticks


def test_a_leap_ahead_shows_at_once_and_is_made_up_for_at_half_speed() -> None:
    clock = MemberClock()
    clock.set(1000, rate=1.0, offset=500)
    assert clock.read(1000) == 1500
    clock.set(2000, rate=1.0, offset=0)
    assert (clock.read(2000), clock.read(2500), clock.read(3000)) == (2500, 2750, 3000)
    assert clock.read(4000) == 4000
