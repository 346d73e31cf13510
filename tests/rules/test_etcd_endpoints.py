"""Which endpoint of etcd is asked next."""

from __future__ import annotations

import random
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.etcd.client.endpoints import LONGEST_PAUSE_SECONDS, MAX_LEARNED, Endpoints, normal

A, B, C = "http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"


def endpoints(*configured: str) -> Endpoints:
    return Endpoints(configured or (A, B, C), random.Random(1))


def test_the_configured_order_holds_until_something_is_known() -> None:
    assert endpoints().order(0) == (A, B, C)


def test_the_one_that_answered_is_kept() -> None:
    known = endpoints()
    known.answered(B)
    assert known.order(0) == (B, A, C)


def test_one_that_failed_is_last_until_its_pause_is_over_and_then_behind_those_that_did_not_fail() -> None:
    known = endpoints()
    known.answered(A)
    known.failed(A, 100.0, "connection refused")
    assert known.order(100.0) == (B, C, A)
    assert known.order(100.0 + LONGEST_PAUSE_SECONDS) == (B, C, A)
    known.answered(A)
    assert known.order(100.0)[0] == A


def test_all_are_asked_even_if_all_have_failed() -> None:
    known = endpoints()
    for url in (B, A, C):
        known.failed(url, 5.0, "refused")
    assert set(known.order(5.0)) == {A, B, C}


def pause_of(known: Endpoints, since: float) -> float:
    """How long its only member is passed over: until another failure counts."""
    (before,) = known.health()
    low, high = since, since + 2 * LONGEST_PAUSE_SECONDS
    while high - low > 1e-9 * high:
        later = deepcopy(known)
        later.failed(A, middle := (low + high) / 2, "refused")
        low, high = (low, middle) if later.health()[0].failures > before.failures else (middle, high)
    return high - since


def test_pauses_grow_to_a_limit_and_count_a_failure_only_once_while_they_last() -> None:
    known = endpoints(A)
    now, pauses = 0.0, []
    for _ in range(10):
        known.failed(A, now, "refused")
        known.failed(A, now, "refused again")
        (health,) = known.health()
        pauses.append(pause_of(known, now))
        now += pauses[-1]
    assert (health.failures, health.reason) == (10, "refused again")
    assert 0.25 <= pauses[0] <= 0.5
    assert all(LONGEST_PAUSE_SECONDS / 2 <= pause <= LONGEST_PAUSE_SECONDS for pause in pauses[-4:])
    assert len(set(pauses)) == len(pauses)


def test_being_alive_ends_a_failure_but_no_pause() -> None:
    known = endpoints()
    known.failed(A, 0.0, "no answer")
    known.alive(A, 0.1)
    assert known.health()[0].reason == "no answer"
    known.alive(A, 60.0)
    assert known.health()[0].reason == ""
    assert known.order(60.0) == (A, B, C)


def test_the_member_list_adds_endpoints_and_takes_them_away_but_never_a_configured_one() -> None:
    known = endpoints(A)
    known.learn([B, C, A])
    assert known.order(0) == (A, B, C)
    known.answered(C)
    known.learn([B])
    assert known.order(0) == (A, B)
    known.learn([])
    assert known.order(0) == (A,)
    assert [(each.url, each.configured) for each in known.health()] == [(A, True)]


def test_what_is_known_of_an_endpoint_outlasts_a_reading_of_the_member_list() -> None:
    known = endpoints(A)
    known.learn([B])
    known.failed(B, 0.0, "refused")
    known.learn([B, C])
    assert {each.url: each.reason for each in known.health()} == {A: "", B: "refused", C: ""}


@pytest.mark.parametrize(
    "url",
    [
        "http://0.0.0.0:2379",
        "http://[::]:2379",
        "http://127.0.0.1:2379",
        "http://localhost:2379",
        "http://[::1]:2379",
        "unix://etcd.sock",
        "http://user:secret@10.0.0.9:2379",
        "http://10.0.0.9:99999",
        "http://",
        "http://10.0.0.9:2379\r\nX: y",
        "http://ho st:1",
        "",
    ],
)
def test_an_unusable_url_is_not_learned(url: str) -> None:
    known = endpoints(A)
    known.learn([url, B])
    assert known.order(0) == (A, B)


def test_loopback_is_learned_by_who_uses_loopback() -> None:
    known = endpoints("http://localhost:1")
    known.learn(["http://127.0.0.1:2", "http://127.0.0.2:3"])
    assert known.order(0) == ("http://localhost:1", "http://127.0.0.1:2", "http://127.0.0.2:3")


def test_plain_http_is_not_learned_where_tls_is_configured() -> None:
    known = endpoints("https://10.0.0.1:2379")
    known.learn([B, "https://10.0.0.2:2379"])
    assert known.order(0) == ("https://10.0.0.1:2379", "https://10.0.0.2:2379")


def test_a_list_of_members_without_end_is_cut() -> None:
    known = endpoints(A)
    known.learn([f"http://10.1.0.{number}:2379" for number in range(200)])
    assert len(known.order(0)) == 1 + MAX_LEARNED


def test_one_endpoint_is_one_however_it_is_written() -> None:
    known = endpoints("http://Etcd-1:2379/", "http://etcd-1:2379", "HTTP://ETCD-1:2379")
    assert known.order(0) == ("http://etcd-1:2379",)
    assert known.among("http://ETCD-1:2379/") == "http://etcd-1:2379"
    assert known.among("http://etcd-2:2379") == ""


@given(st.text())
def test_any_text_is_an_endpoint_or_not(text: str) -> None:
    assert normal(normal(text)) == normal(text)


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.booleans(), st.floats(0, 5)), max_size=40))
def test_there_is_always_an_order_of_all(steps: list[tuple[str, bool, float]]) -> None:
    known, now = endpoints(), 0.0
    for url, well, passed in steps:
        now += passed
        if well:
            known.answered(url)
            assert known.order(now)[0] == url
        else:
            known.failed(url, now, "x")
        assert sorted(known.order(now)) == [A, B, C]


def test_a_closed_endpoint_is_not_asked_until_it_is_opened_again() -> None:
    known = endpoints(A, B)
    known.close([A + "/"])
    assert known.order(0.0) == (B,)
    assert known.among(A) == ""
    known.close([])
    assert known.order(0.0) == (A, B)
