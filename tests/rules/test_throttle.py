"""Limits on guessing passwords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.auth.throttle import Throttle, network_of
from heliosd.config.model import AuthConfig, Config, Settings


def throttle(limit: int = 3) -> Throttle:
    return Throttle(Settings(Config(auth=AuthConfig(login_attempts_per_minute=limit))))


def test_failures_of_one_pair_are_limited_and_the_wait_is_known() -> None:
    limits = throttle(3)
    for moment in (0.0, 1.0, 2.0):
        assert limits.retry_after("192.0.2.1", "eva", moment) == 0
        limits.failed("192.0.2.1", "eva", moment)
    assert limits.retry_after("192.0.2.1", "eva", 10.0) == 50.0
    assert limits.retry_after("192.0.2.1", "eva", 60.0) == 0
    assert limits.retry_after("192.0.2.1", "adam", 10.0) == 0
    assert limits.retry_after("192.0.2.2", "eva", 10.0) == 0


def test_trying_many_names_from_one_address_is_limited_at_ten_times_as_many() -> None:
    limits = throttle(3)
    for number in range(30):
        assert limits.retry_after("192.0.2.1", f"user{number}", 5.0) == 0
        limits.failed("192.0.2.1", f"user{number}", 5.0)
    assert limits.retry_after("192.0.2.1", "another", 6.0) == 59.0
    assert limits.retry_after("192.0.2.2", "another", 6.0) == 0


def test_failures_are_those_of_the_last_minute_however_long_it_goes_on() -> None:
    limits = throttle(3)
    for number in range(20):
        limits.failed("192.0.2.1", "eva", 50.0 * number)
    assert limits.failures("192.0.2.1", 50.0 * 19) == 2
    assert limits.failures("192.0.2.1", 50.0 * 19 + 20) == 1
    assert limits.failures("192.0.2.1", 50.0 * 19 + 60) == 0


def test_a_right_password_does_not_count() -> None:
    limits = throttle(1)
    for _ in range(20):
        assert limits.retry_after("192.0.2.1", "eva", 1.0) == 0
        limits.failed("192.0.2.1", "eva", 1.0)
        limits.succeeded("192.0.2.1", "eva")
    limits.succeeded("192.0.2.1", "eva")
    assert limits.retry_after("192.0.2.1", "eva", 1.0) == 0


def test_a_limit_lowered_by_a_reload_holds_at_once() -> None:
    settings = Settings(Config(auth=AuthConfig(login_attempts_per_minute=5)))
    limits = Throttle(settings)
    for moment in range(3):
        limits.failed("192.0.2.1", "eva", float(moment))
    settings.current = Config(auth=AuthConfig(login_attempts_per_minute=2))
    assert limits.retry_after("192.0.2.1", "eva", 3.0) == 58.0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_a_v6_client_is_known_by_its_64(address: str, network: str) -> None:
    assert network_of(address) == network


def test_memory_stays_bounded_under_a_flood_and_is_given_back() -> None:
    limits = throttle(3)
    for number in range(20_000):
        limits.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "x" * 100_000, 1.0)
    assert 0 < len(limits) <= 10_000
    assert limits.retry_after("192.0.2.1", "eva", 100.0) == 0
    assert len(limits) == 0


def test_of_a_long_name_only_the_beginning_is_kept() -> None:
    limits = throttle(3)
    for ending in "abc":
        limits.failed("192.0.2.1", "x" * 256 + ending, 1.0)
    assert limits.retry_after("192.0.2.1", "x" * 256, 1.0) > 0
    assert limits.retry_after("192.0.2.1", "x" * 255, 1.0) == 0


@given(st.lists(st.floats(0, 300), min_size=1), st.integers(1, 5))
def test_never_more_failures_in_a_minute_than_allowed(moments: list[float], limit: int) -> None:
    limits = throttle(limit)
    let_through: list[float] = []
    for moment in sorted(moments):
        if limits.retry_after("192.0.2.1", "eva", moment) == 0:
            limits.failed("192.0.2.1", "eva", moment)
            let_through.append(moment)
    for moment in let_through:
        assert sum(moment <= other < moment + 59.999 for other in let_through) <= limit
