"""The rules that a running daemon is held to find each kind of offence."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.promise_rules import EVERYTHING, Message, Record, picture, violations


def metric(value: int, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {"value": value, "labels": labels or {}, "updated_at": f"2026-01-01T00:00:{value:02}Z"}


def event(seq: int, data: dict[str, Any]) -> Message:
    return {"type": "custom_metrics", "seq": seq, "data": data}


def value(**metrics: Any) -> Message:
    return {"type": "custom_metrics", "data": metrics}


def status(as_of: int, **metrics: Any) -> Message:
    return {"type": "status", "data": {"as_of_seq": as_of, "custom_metrics": metrics}}


def gap(first: int, last: int, dropped: int) -> Message:
    return {"type": "gap", "data": {"from_seq": first, "to_seq": last, "dropped": dropped}}


def welcome(seq: int, *, recovered: bool = True) -> Message:
    return {"type": "welcome", "data": {"epoch": "E", "seq": seq, "recovered": recovered, "replayed": 0}}


EVENTS = {
    1: event(1, {"a": metric(1)}),
    2: event(2, {"b": metric(2)}),
    3: event(3, {"a": None}),
    4: event(4, {"c": metric(4)}),
    5: event(5, {"d": metric(5)}),
}
ONLY_B = {"custom_metrics": {"names": ["b"]}}
SUBSCRIBED = {"type": "subscribed", "id": 1, "data": {}}


def broken(*messages: Message, **record: Any) -> list[str]:
    return list(violations(Record("c", messages=list(messages), **record), EVENTS))


@pytest.mark.parametrize(
    ("messages", "record"),
    [
        ([status(0), EVENTS[1], EVENTS[2], EVENTS[3], status(3), EVENTS[4]], {}),
        ([welcome(3), EVENTS[2], EVENTS[3], status(3)], {"cursor": ("E", 1)}),
        ([status(0), EVENTS[1], gap(2, 4, 3), status(4), EVENTS[5]], {}),
        ([status(0), EVENTS[2], gap(3, 5, 0), status(5)], {"wanted": ONLY_B}),
        ([status(0), EVENTS[1], SUBSCRIBED, status(3)], {"questions": [(1, {})]}),
        ([status(0), EVENTS[1], SUBSCRIBED, EVENTS[2], status(5)], {"questions": [(1, ONLY_B)]}),
        ([status(0), EVENTS[1], gap(2, 2, 1), status(4), SUBSCRIBED], {"questions": [(1, ONLY_B)]}),
        ([status(0), EVENTS[1], value(a=metric(2)), EVENTS[2], value(a=metric(3), b=metric(3))], {}),
    ],
)
def test_what_the_protocol_allows_is_no_offence(messages: list[Message], record: dict[str, Any]) -> None:
    assert broken(*messages, **record) == []


@pytest.mark.parametrize(
    ("messages", "record", "says"),
    [
        ([status(0), EVENTS[1], EVENTS[3]], {}, "seq 2 never came"),
        ([status(0), EVENTS[1], status(2), EVENTS[2]], {}, "seq 2 after 2 was known"),
        ([status(0), EVENTS[1], EVENTS[1]], {}, "seq 1 after 1 was known"),
        ([status(0), EVENTS[1], status(2)], {}, "seq 2 never came"),
        ([status(3), status(2)], {}, "as of 2, after 3 was known"),
        ([welcome(3), EVENTS[3], status(3)], {"cursor": ("E", 1)}, "seq 2 never came"),
        ([status(0), EVENTS[1], gap(1, 2, 1)], {}, "begins at or before 1"),
        ([status(0), EVENTS[1], gap(2, 4, 2), status(4)], {}, "says that 2 were dropped"),
        ([status(0), EVENTS[1]], {"wanted": ONLY_B}, "is not what was asked for"),
        ([status(0), gap(1, 1, 1), status(4), SUBSCRIBED], {"questions": [(1, ONLY_B)]}, "seq 2 never came"),
        ([status(0), SUBSCRIBED, EVENTS[1]], {"questions": [(1, ONLY_B)]}, "is of the subscription before"),
        ([status(0), value(a=metric(1))], {"wanted": ONLY_B}, "does not let through"),
        ([status(2), EVENTS[3], value(a=metric(9))], {}, "after its deletion"),
        ([status(2, b=metric(5)), value(b=metric(4))], {}, "older than the one before"),
        ([status(0), {"type": "pong", "id": 2}], {"questions": [(1, None), (2, None)]}, "before [1]"),
        ([status(0), {"type": "pong", "id": 7}], {"questions": [(1, None)]}, "was not asked"),
    ],
)
def test_each_kind_of_offence_is_found(messages: list[Message], record: dict[str, Any], says: str) -> None:
    found = broken(*messages, **record)
    assert any(says in each for each in found), found


@pytest.mark.parametrize(("dropped", "fits"), [(0, False), (1, True), (3, True), (5, True), (6, False)])
def test_a_gap_may_span_a_subscription_whose_answer_has_not_come(dropped: int, fits: bool) -> None:
    """It took effect before all of the events that the gap names, among them, or behind them."""
    found = broken(status(0), gap(1, 5, dropped), questions=[(7, ONLY_B)])
    assert (found == []) is fits


def test_a_client_without_a_subscription_of_its_own_has_asked_for_everything() -> None:
    assert Record("c").wanted == EVERYTHING


def test_the_picture_is_the_newest_status_and_what_came_behind_it() -> None:
    messages = [value(x=metric(1)), status(1, a=metric(1), b=metric(2)), EVENTS[3], value(b=metric(7))]
    assert picture(messages) == {"b": metric(7)}
    assert picture([value(x=metric(1))]) is None
