"""Values at a min_interval: later, but never lost, and never after the deletion of their metric."""

from __future__ import annotations

import json
from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from heliosd.hub.client import HubClient
from heliosd.hub.value_throttle import ValueThrottle
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import Subscription, Topic
from tests.support.hub_harness import Socket
from tests.support.socket_pairs import SOMEBODY

PAUSE = 2.0
EVERY_TWO_SECONDS = Subscription.parse({"custom_metrics": {"min_interval": PAUSE}})
NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.dictionaries(NAMES, st.integers(), min_size=1)),
        st.tuples(st.just("delete"), NAMES),
        st.tuples(st.just("wait"), st.floats(0.0, 3.0)),
    ),
    max_size=60,
)


def metrics(data: dict[str, object], kind: Kind, seq: int | None = None) -> OutgoingMessage:
    payload = json.dumps({"type": "custom_metrics", "timestamp": "t", "data": data}).encode()
    return OutgoingMessage("custom_metrics", kind, Topic.CUSTOM_METRICS, payload, seq)


def client(name: str) -> HubClient:
    """A client that wants values of custom metrics every `PAUSE` seconds."""
    return HubClient(
        serial=0,
        id=name,
        identity=SOMEBODY,
        address="",
        since=0.0,
        transport=Socket(),
        send_buffer=8,
        subscription=EVERY_TWO_SECONDS,
    )


@given(STEPS)
def test_values_at_an_interval_end_with_the_same_picture_as_all_values(
    steps: list[tuple[str, object]],
) -> None:
    throttle, mine = ValueThrottle(), client("c")
    truth: dict[str, object] = {}
    seen: dict[str, object] = {}
    sent_at: list[float] = []
    now = 0.0

    def send(value: OutgoingMessage) -> None:
        sent_at.append(now)
        for name, view in value.data.items():
            assert name in truth, "a value of a metric that is gone"
            seen[name] = view["value"]

    def release() -> None:
        if now >= throttle.due:
            while (released := throttle.release(now)) is not None:
                send(released[1])

    for step, what in steps:
        match step, what:
            case "set", dict():
                truth |= what
                value = metrics({name: {"value": number} for name, number in what.items()}, Kind.VALUE)
                if throttle.admit(mine, value, now):
                    send(value)
            case "delete", str():
                truth.pop(what, None)
                seen.pop(what, None)  # events are not held back
                throttle.discard_stale(mine, metrics({what: None}, Kind.EVENT, 1))
            case "wait", float():
                now += what
                release()
    now += PAUSE
    release()
    assert seen == truth
    assert throttle.due == inf
    assert all(later - earlier >= PAUSE - 1e-9 for earlier, later in pairwise(sent_at))


def test_a_client_that_has_left_costs_others_nothing_and_gets_nothing() -> None:
    throttle, first, second = ValueThrottle(), client("1"), client("2")
    value = metrics({"a": {"value": 1}}, Kind.VALUE)
    for one in (first, second):
        assert throttle.admit(one, value, 0.0)
        assert not throttle.admit(one, value, 1.0)
    throttle.forget(first)
    assert throttle.release(5.0) == (second, value)
    assert throttle.release(5.0) is None
    assert throttle.due == inf


def test_subscribing_again_does_not_shorten_the_interval_and_filters_what_is_held() -> None:
    throttle, mine = ValueThrottle(), client("1")
    both = metrics({"a": {"value": 1, "labels": {}}, "b": {"value": 1, "labels": {}}}, Kind.VALUE)
    assert throttle.admit(mine, both, 0.0)
    assert not throttle.admit(mine, both, 1.0)
    only_a = {"names": ["a"], "min_interval": PAUSE}
    mine.subscription = Subscription.parse({"custom_metrics": only_a})
    assert throttle.resubscribe(mine, 1.5) == []
    assert throttle.release(1.9) is None
    released = throttle.release(PAUSE)
    assert released is not None
    assert list(released[1].data) == ["a"]


def test_the_deadline_of_a_value_that_is_not_sent_does_not_let_the_next_one_go_sooner() -> None:
    throttle, mine = ValueThrottle(), client("1")
    value = metrics({"a": {"value": 1}}, Kind.VALUE)
    assert throttle.admit(mine, value, 0.0)
    assert not throttle.admit(mine, value, 1.0)
    assert mine.paced is not None
    mine.paced["custom_metrics"].held = None  # a status contained it
    assert throttle.admit(mine, value, PAUSE + 0.5)
    assert not throttle.admit(mine, value, PAUSE + 0.5)
    assert throttle.release(2 * PAUSE) is None
    assert throttle.due == 2 * PAUSE + 0.5
    assert throttle.release(2 * PAUSE + 0.5) == (mine, value)


def test_without_an_interval_in_the_new_subscription_what_is_held_goes_at_once() -> None:
    throttle, mine = ValueThrottle(), client("1")
    value = metrics({"a": {"value": 1}}, Kind.VALUE)
    assert throttle.admit(mine, value, 0.0)
    assert not throttle.admit(mine, value, 1.0)
    mine.subscription = Subscription()
    assert throttle.resubscribe(mine, 1.5) == [value]
    assert throttle.due == inf
