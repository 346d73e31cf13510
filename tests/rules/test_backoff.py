"""The waits between attempts."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from heliosd.backoff import Backoff


def waits(seed: int, count: int) -> list[float]:
    backoff = Backoff(random.Random(seed), first=0.5, longest=30.0)
    return [backoff.seconds() for _ in range(count)]


@given(st.integers(), st.floats(0, 1), st.floats(0.01, 5), st.floats(5, 60))
def test_a_wait_is_in_the_upper_share_of_a_ceiling_that_doubles_to_the_longest(
    seed: int, jitter: float, first: float, longest: float
) -> None:
    backoff = Backoff(random.Random(seed), first=first, longest=longest, jitter=jitter)
    for failures in range(2000):
        ceiling = min(longest, first * 2.0 ** min(failures, 10))
        assert ceiling * (1 - jitter) <= backoff.seconds() <= ceiling * (1 + 1e-9)


def test_the_least_wait_is_added() -> None:
    backoff = Backoff(random.Random(1), first=0.5, longest=30.0)
    assert 10.25 <= backoff.seconds(10.0) <= 10.5


def test_after_a_reset_waits_begin_anew() -> None:
    backoff = Backoff(random.Random(1), first=0.5, longest=30.0)
    assert [backoff.seconds() for _ in range(9)][-1] > 10
    backoff.reset()
    assert (backoff.failures, backoff.seconds() <= 0.5) == (0, True)


def test_those_who_failed_together_do_not_try_again_together() -> None:
    assert len({waits(seed, 1)[0] for seed in range(50)}) == 50
