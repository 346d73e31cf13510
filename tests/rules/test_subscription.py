"""What a client asked for: defaults, the seven keys, and exact refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.subscription import EVERYTHING, KEYS, BadSubscription, Subscription, Topic

SEVEN = ["status", "latency", "uptime", "snapshot", "custom_metrics", "state_changes", "peer_changes"]


def test_a_client_is_subscribed_to_everything_from_the_start() -> None:
    assert Subscription().topics == EVERYTHING
    assert Subscription().active() == dict.fromkeys(SEVEN, True)


def test_the_keys_on_the_wire_are_the_seven_of_the_contract() -> None:
    assert list(KEYS) == SEVEN


@given(st.dictionaries(st.sampled_from(SEVEN), st.booleans()))
def test_a_name_left_out_means_false(data: dict[str, bool]) -> None:
    subscription = Subscription.parse(data)
    assert subscription.active() == {key: data.get(key, False) for key in SEVEN}
    for key, topic in KEYS.items():
        assert subscription.wants(topic) is data.get(key, False)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"state_change": True}, "data.state_change"),
        ({"status": 1}, "data.status"),
        ({"status": True, "latency": None}, "data.latency"),
        ({"status": "true"}, "data.status"),
        ([], "data"),
        (None, "data"),
        ("status", "data"),
    ],
)
def test_a_wrong_subscription_is_refused_by_the_name_of_what_is_wrong(data: object, field: str) -> None:
    with pytest.raises(BadSubscription) as refused:
        Subscription.parse(data)
    assert refused.value.field == field


def test_topics_are_independent_of_each_other() -> None:
    only = Subscription(Topic.SNAPSHOT)
    assert [topic for topic in Topic if only.wants(topic)] == [Topic.SNAPSHOT]
