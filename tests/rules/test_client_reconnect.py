"""When a client reconnects, and when it must not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.client.reconnect import (
    LONGEST_RETRY_AFTER,
    LONGEST_SECONDS,
    ConnectionLost,
    after_close,
    after_refusal,
    reconnect_backoff,
)
from heliosd.client.websocket import sole_error
from heliosd.errors import AccessRefused, NotUnderstood, Unreachable


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 4408, 4999])
def test_after_most_closes_it_reconnects(code: int) -> None:
    lost = after_close(code, None)
    assert (lost.code, lost.at_least, lost.new_token) == (code, 0.0, False)
    assert lost.reason


def test_some_closes_ask_for_a_pause_or_a_new_token() -> None:
    assert after_close(4000, None).at_least == 5.0
    assert after_close(4429, None).at_least == 10.0
    assert after_close(4401, "token expired").new_token


def test_a_client_that_is_no_longer_allowed_does_not_reconnect() -> None:
    with pytest.raises(AccessRefused):
        after_close(4403, "no longer allowed")
    for status in (401, 403):
        with pytest.raises(AccessRefused, match="Permission"):
            after_refusal(status, "Permission required", None)


def test_the_longest_wait_can_be_chosen() -> None:
    backoff = reconnect_backoff(random.Random(1), 5.0)
    waits = [backoff.seconds() for _ in range(50)]
    assert 2.5 < max(waits) <= 5.0
    backoff.reset()
    assert backoff.seconds() <= 0.5


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009])
def test_a_fault_in_the_protocol_is_not_repeated(code: int) -> None:
    with pytest.raises(NotUnderstood):
        after_close(code, None)


@pytest.mark.parametrize("status", [301, 400, 404, 405, 410, 426])
def test_a_request_that_is_wrong_is_not_repeated(status: int) -> None:
    with pytest.raises(NotUnderstood):
        after_refusal(status, "wrong", "1")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
def test_a_server_that_is_busy_or_broken_is_asked_again(status: int) -> None:
    assert after_refusal(status, "later", "7").at_least == 7


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
        (" 3 ", 3),
        ("9" * 400, LONGEST_RETRY_AFTER),
    ],
)
def test_a_retry_after_that_is_no_number_of_seconds_is_ignored(said: str | None, seconds: float) -> None:
    assert after_refusal(503, "later", said).at_least == seconds


@given(st.integers(), st.lists(st.floats(0, 100), min_size=1, max_size=2000))
def test_the_wait_is_at_least_what_was_asked_and_never_endless(seed: int, asked: list[float]) -> None:
    backoff = reconnect_backoff(random.Random(seed))
    for at_least in asked:
        assert at_least < backoff.seconds(at_least) <= at_least + LONGEST_SECONDS


def test_the_first_wait_is_at_most_half_a_second() -> None:
    assert all(reconnect_backoff(random.Random(seed)).seconds() <= 0.5 for seed in range(50))


def test_an_error_that_is_alone_is_raised_without_its_groups() -> None:
    with pytest.raises(ConnectionLost, match="broke"), sole_error():
        raise ExceptionGroup("", [ExceptionGroup("", [ConnectionLost("the connection broke")])])


def test_of_several_errors_of_the_daemon_the_first_is_raised_and_a_bug_keeps_its_group() -> None:
    lost = ExceptionGroup(
        "", [Unreachable("http://a", "first"), ExceptionGroup("", [Unreachable("http://a", "second")])]
    )
    with pytest.raises(Unreachable, match="first"), sole_error():
        raise lost
    with pytest.raises(ExceptionGroup), sole_error():
        raise ExceptionGroup("", [lost, ValueError()])


def test_ctrl_c_in_one_task_stands_for_the_errors_that_it_causes_in_others() -> None:
    caused = ExceptionGroup("", [ConnectionLost("the connection broke")])
    with pytest.raises(KeyboardInterrupt), sole_error():
        raise BaseExceptionGroup("", [KeyboardInterrupt(), caused])
