"""The sequence checker must catch every kind of broken stream: faulty ones are made here by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.sequence_rules import Follower, Ledger, Violation, check_page

EPOCH = "e1"


def event(seq: int, words: str = "") -> dict[str, Any]:
    return {"type": "peer_change", "seq": seq, "data": {"peer_id": words or f"node-{seq}"}}


def status(as_of: int) -> dict[str, Any]:
    return {"type": "status", "data": {"as_of_seq": as_of}}


def welcome(seq: int, **data: Any) -> dict[str, Any]:
    return {
        "type": "welcome",
        "data": {
            "epoch": EPOCH,
            "seq": seq,
            "oldest_seq": 1,
            "recovered": True,
            "reason": None,
            "replayed": 0,
            **data,
        },
    }


def refused(seq: int, reason: str, **data: Any) -> dict[str, Any]:
    return welcome(seq, recovered=False, reason=reason, **data)


def gap(first: int, last: int, dropped: int | None = None) -> dict[str, Any]:
    return {
        "type": "gap",
        "data": {
            "from_seq": first,
            "to_seq": last,
            "dropped": last - first + 1 if dropped is None else dropped,
            "reason": "slow_consumer",
        },
    }


VALUE = {"type": "latency", "data": {}}
PONG = {"type": "pong"}
START = [welcome(5), status(5)]


def feed(follower: Follower, *messages: dict[str, Any]) -> Follower:
    follower.dial()
    for message in messages:
        follower.take(json.dumps(message).encode())
    return follower


def started(ledger: Ledger | None = None, name: str = "a") -> Follower:
    return feed(Follower(name, ledger if ledger is not None else Ledger()), *START, event(6), event(7))


def test_an_honest_stream_is_followed_to_its_end() -> None:
    follower = started()
    assert follower.position == 7
    assert follower.dial() == {"epoch": EPOCH, "after": "7"}
    feed(follower, welcome(9, replayed=2), event(8), event(9), status(9), VALUE, PONG, event(10), status(10))
    feed(follower, welcome(10), status(10), gap(11, 20), status(20), event(21))
    feed(follower, refused(2000, "too_many"), status(2000), event(2001))
    feed(follower, refused(4000, "too_old", oldest_seq=3000), status(4000))
    feed(follower, refused(3, "epoch_changed", epoch="e2"), status(3), event(4))
    assert (follower.epoch, follower.position) == ("e2", 4)
    seen = follower.seen
    assert (seen.deliveries, seen.replayed, seen.resumes, seen.gaps, seen.epochs) == (8, 2, 2, 1, 2)
    assert seen.named == 10 + (2000 - 21) + (4000 - 2001)
    assert seen.refusals == {"too_many": 1, "too_old": 1, "epoch_changed": 1}


def test_a_new_epoch_in_the_middle_of_a_connection_is_followed() -> None:
    follower = started()
    for message in (refused(0, "epoch_changed", epoch="e2"), status(0), event(1)):
        follower.take(json.dumps(message).encode())
    assert (follower.epoch, follower.position) == ("e2", 1)


def test_a_second_gap_may_take_the_place_of_the_status_that_is_due() -> None:
    follower = started()
    for message in (gap(8, 10), gap(11, 12), status(12), refused(0, "epoch_changed", epoch="e2"), gap(1, 3)):
        follower.take(json.dumps(message).encode())
    assert (follower.epoch, follower.position, follower.seen.named) == ("e2", 3, 8)


def test_what_is_known_when_a_connection_breaks_is_where_the_next_one_goes_on() -> None:
    follower = feed(started(), welcome(9, replayed=2), event(8))
    assert follower.dial() == {"epoch": EPOCH, "after": "8"}


FAULTS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "a hole": ("hole", [welcome(7), status(7), event(9)]),
    "a double": ("double", [welcome(7), status(7), event(8), event(8)]),
    "a double of what came before the cut": ("double", [welcome(7), status(7), event(7)]),
    "two that changed places": ("hole", [welcome(7), status(7), event(9), event(8)]),
    "a changed content, replayed again": ("changed content", [welcome(7), status(7), event(7, "else")]),
    "recovered, but one is left out": ("wrong recovered", [welcome(9, replayed=2), event(9)]),
    "recovered, but the replay ends early": (
        "wrong recovered",
        [welcome(9, replayed=2), event(8), status(8)],
    ),
    "recovered, but too few are counted": ("wrong recovered", [welcome(9, replayed=1)]),
    "recovered, but too many are counted": ("wrong recovered", [welcome(7, replayed=1)]),
    "recovered, but they are forgotten": ("wrong recovered", [welcome(9, replayed=2, oldest_seq=9)]),
    "recovered in another epoch": ("wrong recovered", [welcome(7, epoch="e2")]),
    "not recovered, but replayed": ("wrong recovered", [refused(2000, "too_many", replayed=3)]),
    "the numbers went back": ("went back", [welcome(6)]),
    "the numbers went back, and it is said": ("went back", [refused(6, "ahead")]),
    "ahead of numbers that were sent": ("wrong refusal", [refused(8, "ahead")]),
    "refused as too old though it is kept": ("wrong refusal", [refused(20, "too_old", oldest_seq=8)]),
    "refused for an epoch that is the same": ("wrong refusal", [refused(7, "epoch_changed")]),
    "refused for a reason that nobody knows": ("wrong refusal", [refused(7, "mood")]),
    "a gap that begins late": ("hole", [welcome(7), status(7), gap(9, 12)]),
    "a gap that names what has come": ("wrong gap", [welcome(7), status(7), gap(7, 12)]),
    "a gap that ends before it begins": ("wrong gap", [welcome(7), status(7), gap(8, 7)]),
    "a gap that miscounts": ("wrong gap", [welcome(7), status(7), gap(8, 12, 4)]),
    "a gap that ends early": ("hole", [welcome(7), status(7), gap(8, 12), status(12), event(14)]),
    "a gap that ends late": ("double", [welcome(7), status(7), gap(8, 12), status(12), event(12)]),
    "a gap without status": ("wrong order", [welcome(7), status(7), gap(8, 12), event(13)]),
    "a gap and a value before status": ("wrong order", [welcome(7), status(7), gap(8, 12), VALUE]),
    "a status that runs ahead": ("wrong status", [welcome(7), status(7), event(8), status(9)]),
    "a status that lags": ("wrong status", [welcome(7), status(6)]),
    "no welcome": ("no welcome", [status(7)]),
    "a live event before the status of a resume": ("wrong order", [welcome(7), event(8)]),
    "a value inside of a replay": ("wrong order", [welcome(9, replayed=2), event(8), VALUE]),
    "a gap inside of a replay": ("wrong order", [welcome(9, replayed=2), event(8), gap(9, 12)]),
    "a second welcome in the same epoch": ("wrong recovered", [welcome(7), status(7), welcome(7)]),
    "something that is no message": ("malformed", [welcome(7), status(7), {"typ": "x"}]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_stream_is_caught(name: str) -> None:
    rule, messages = FAULTS[name]
    follower = started()
    with pytest.raises(Violation) as caught:
        feed(follower, *messages)
    assert caught.value.rule == rule


def test_too_many_is_a_lie_when_all_that_was_missed_is_known_and_little() -> None:
    ledger = Ledger()
    started(ledger, "b")
    late = feed(Follower("a", ledger), welcome(5), status(5))
    with pytest.raises(Violation) as caught:
        feed(late, refused(7, "too_many"))
    assert caught.value.rule == "wrong refusal"


def test_different_contents_under_one_number_are_caught_and_both_shown() -> None:
    ledger = Ledger()
    started(ledger, "first")
    with pytest.raises(Violation) as caught:
        feed(Follower("second", ledger), *START, event(6, "something else"))
    assert caught.value.rule == "changed content"
    for words in ("first received", "second received", "node-6", "something else"):
        assert words in str(caught.value)


def test_the_same_content_in_other_words_is_the_same() -> None:
    ledger = Ledger()
    started(ledger)
    follower = feed(Follower("b", ledger), *START)
    follower.take(b'{ "seq": 6, "data": {"peer_id": "node\\u002d6"}, "type": "peer_change" }')
    assert follower.position == 6


def test_a_number_lost_by_the_daemon_is_caught_through_what_another_client_saw() -> None:
    """As after a crash of a daemon that published before it stored."""
    ledger = Ledger()
    behind = feed(Follower("behind", ledger), *START)
    started(ledger, "ahead")
    with pytest.raises(Violation) as caught:
        feed(behind, welcome(6, replayed=1))
    assert caught.value.rule == "went back"


def test_a_digest_outlives_the_words_it_was_made_of() -> None:
    ledger = Ledger(keep=1)
    started(ledger)
    with pytest.raises(Violation, match="no longer kept"):
        ledger.enter(EPOCH, 6, json.dumps(event(6, "other")).encode(), "b")


def page(first: int, last: int, seq: int, *, more: bool, epoch: str = EPOCH) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "oldest_seq": 1,
        "seq": seq,
        "more": more,
        "events": [event(n) for n in range(first, last + 1)],
    }


def test_pages_of_the_history_are_followed_and_compared() -> None:
    ledger = Ledger()
    started(ledger)
    assert check_page(ledger, page(3, 6, 9, more=True), EPOCH, 2) == 6
    assert check_page(ledger, page(7, 9, 9, more=False), EPOCH, 6) == 9


@pytest.mark.parametrize(
    "wrong",
    [
        page(4, 6, 9, more=True),
        page(3, 6, 9, more=False),
        page(3, 9, 9, more=True),
        page(3, 6, 9, more=True, epoch="e2"),
        {**page(3, 4, 6, more=True), "events": [event(3), event(5)]},
    ],
)
def test_a_wrong_page_is_caught(wrong: dict[str, Any]) -> None:
    with pytest.raises(Violation, match="wrong history"):
        check_page(Ledger(), wrong, EPOCH, 2)


def test_a_page_that_tells_an_event_differently_is_caught() -> None:
    ledger = Ledger()
    started(ledger)
    altered = {**page(6, 6, 6, more=False), "events": [event(6, "else")]}
    with pytest.raises(Violation, match="changed content"):
        check_page(ledger, altered, EPOCH, 5)
