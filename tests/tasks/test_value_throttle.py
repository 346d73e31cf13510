"""Values at a min_interval: later, but never lost, and never after the deletion of what they speak of."""

from __future__ import annotations

import json
from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from heliosd.auth.identity import Identity, TokenOrigin
from heliosd.hub.client import HubClient
from heliosd.hub.value_throttle import ValueThrottle
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import Topic
from tests.support.hub_harness import Socket

PAUSE = 2.0
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
    identity = Identity(
        user_id="",
        roles=(),
        permissions=frozenset(),
        jti="",
        issued_at=0.0,
        expires_at=0.0,
        token_origin=TokenOrigin(issuer="", audience="", key="", password=""),
    )
    return HubClient(
        serial=0, client_id=name, identity=identity, address="", since=0.0, transport=Socket(), send_buffer=8
    )


@given(STEPS)
def test_whoever_hears_values_now_and_then_ends_where_whoever_hears_all_ends(
    steps: list[tuple[str, object]],
) -> None:
    pacer, mine = ValueThrottle(), client("c")
    truth: dict[str, object] = {}
    seen: dict[str, object] = {}
    heard_at: list[float] = []
    now = 0.0

    def hear(value: OutgoingMessage) -> None:
        heard_at.append(now)
        for name, view in value.data.items():
            assert name in truth, "a value of a metric that is gone"
            seen[name] = view["value"]

    def release() -> None:
        if now >= pacer.due:
            for _, value in pacer.release(now):
                hear(value)

    for step, what in steps:
        match step, what:
            case "set", dict():
                truth |= what
                value = metrics({name: {"value": number} for name, number in what.items()}, Kind.VALUE)
                if pacer.admit(mine, value, PAUSE, now):
                    hear(value)
            case "delete", str():
                truth.pop(what, None)
                seen.pop(what, None)  # events are not held back
                pacer.discard_stale(metrics({what: None}, Kind.EVENT, 1))
            case "wait", float():
                now += what
                release()
    now += PAUSE
    release()
    assert seen == truth
    assert pacer.due == inf
    assert all(later - earlier >= PAUSE - 1e-9 for earlier, later in pairwise(heard_at))


def test_what_waits_for_one_client_is_nobody_elses() -> None:
    pacer, first, second = ValueThrottle(), client("1"), client("2")
    value = metrics({"a": {"value": 1}}, Kind.VALUE)
    for one in (first, second):
        assert pacer.admit(one, value, PAUSE, 0.0)
        assert not pacer.admit(one, value, PAUSE, 1.0)
    assert pacer.take(first) == [value]
    assert [one.id for one, _ in pacer.release(5.0)] == ["2"]
    assert len(pacer) == 0
