"""Subscriptions: defaults, the seven keys, filters, and exact refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.protocol.filters import BadSubscription, MetricsFilter
from heliosd.protocol.message import Kind, OutgoingMessage, replayed
from heliosd.protocol.subscription import EVERYTHING, KEYS, Subscription, Topic

SEVEN = ["status", "latency", "uptime", "snapshot", "custom_metrics", "state_changes", "peer_changes"]


def peer_change(peer: str, what: str) -> OutgoingMessage:
    return event("peer_change", {"event_type": what, "peer_id": peer, "peer_address": ""})


def state_change(state: str) -> OutgoingMessage:
    return event(
        "state_change", {"old_state": "Follower", "new_state": state, "term": 1, "leader": "", "member": ""}
    )


def event(name: str, data: dict[str, Any]) -> OutgoingMessage:
    payload = json.dumps({"type": name, "timestamp": "t", "seq": 7, "data": data}).encode()
    return replayed(seq=7, at=0.0, name=name, payload=payload)


def metrics(**labels: dict[str, str] | None) -> OutgoingMessage:
    data = {name: None if of is None else {"value": 1, "labels": of} for name, of in labels.items()}
    return event("custom_metrics", data)


def latency(*peers: str) -> OutgoingMessage:
    data = {"peers": {peer: {"peer_id": peer} for peer in peers}, "aggregated": {}, "health_summary": {}}
    payload = json.dumps({"type": "latency", "timestamp": "t", "data": data}).encode()
    return OutgoingMessage("latency", Kind.VALUE, Topic.LATENCY, payload)


def filtered(said: dict[str, Any], message: OutgoingMessage) -> dict[str, Any] | None:
    mine = message.filtered_for(Subscription.parse(said))
    if mine is None:
        return None
    assert (mine.type, mine.seq, mine.kind, mine.topic) == (
        message.type,
        message.seq,
        message.kind,
        message.topic,
    )
    envelope = json.loads(mine.payload)
    assert {key: envelope.get(key) for key in ("type", "timestamp", "seq")} == {
        key: json.loads(message.payload).get(key) for key in ("type", "timestamp", "seq")
    }
    return dict(envelope["data"])


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


def test_subscriptions_that_say_the_same_are_one() -> None:
    said = {"peer_changes": {"peers": ["node-*"]}, "latency": {"min_interval": 2}}
    assert Subscription.parse(said) == Subscription.parse(said)
    assert hash(Subscription.parse(said)) == hash(Subscription.parse(said))
    assert Subscription.parse(said) != Subscription.parse({"peer_changes": {"peers": ["node-1"]}})


def test_the_subscription_in_force_is_shown_as_it_was_sent() -> None:
    said = {"status": True, "peer_changes": {"peers": ["node-*"], "events": ["removed"]}}
    assert Subscription.parse(said).active() == dict.fromkeys(SEVEN, False) | said


def test_an_empty_object_filters_nothing() -> None:
    assert filtered({"peer_changes": {}}, peer_change("x", "added")) is not None


@pytest.mark.parametrize(
    ("said", "message", "passes"),
    [
        ({"peers": ["node-*"]}, peer_change("node-4", "added"), True),
        ({"peers": ["node-*"]}, peer_change("db-4", "added"), False),
        ({"peers": ["db-1", "node-?"]}, peer_change("node-4", "added"), True),
        ({"events": ["removed"]}, peer_change("node-4", "added"), False),
        ({"events": ["removed", "added"], "peers": ["node-4"]}, peer_change("node-4", "added"), True),
        ({"events": ["removed"], "peers": ["node-4"]}, peer_change("node-4", "added"), False),
        ({"peers": ["NODE-*"]}, peer_change("node-4", "added"), False),
    ],
)
def test_peer_changes_are_filtered_by_globs_and_kinds(
    said: dict[str, Any], message: OutgoingMessage, passes: bool
) -> None:
    assert (filtered({"peer_changes": said}, message) is not None) is passes


def test_state_changes_are_filtered_by_the_new_state() -> None:
    assert filtered({"state_changes": {"states": ["Leader"]}}, state_change("Leader")) is not None
    assert filtered({"state_changes": {"states": ["Leader"]}}, state_change("Follower")) is None


def test_custom_metrics_are_cut_to_the_names_and_labels_asked_for() -> None:
    message = metrics(app_a={"env": "prod", "x": "1"}, app_b={"env": "dev"}, other={"env": "prod"})
    said = {"custom_metrics": {"names": ["app_*"], "labels": {"env": "prod"}}}
    data = filtered(said, message)
    assert data is not None
    assert list(data) == ["app_a"]
    assert filtered(said, metrics(other={"env": "prod"})) is None


def test_a_deletion_passes_if_the_name_matches() -> None:
    said = {"custom_metrics": {"names": ["app_*"], "labels": {"env": "prod"}}}
    assert filtered(said, metrics(app_a=None, other=None)) == {"app_a": None}


def test_latency_is_cut_to_the_peers_asked_for_and_an_emptied_message_is_not_sent() -> None:
    data = filtered({"latency": {"peers": ["node-2"]}}, latency("node-2", "node-3"))
    assert data is not None
    assert (list(data["peers"]), "aggregated" in data) == (["node-2"], True)
    assert filtered({"latency": {"peers": ["node-9"]}}, latency("node-2", "node-3")) is None


def test_a_message_that_need_not_be_cut_is_shared() -> None:
    message = metrics(app_a={})
    assert message.filtered_for(Subscription.parse({"custom_metrics": {"names": ["app_*"]}})) is message


@pytest.mark.parametrize("key", ["status", "latency", "uptime", "custom_metrics"])
def test_values_may_have_a_min_interval(key: str) -> None:
    subscription = Subscription.parse({key: {"min_interval": 2}})
    assert subscription.min_interval(KEYS[key]) == 2.0
    assert [subscription.min_interval(topic) for topic in KEYS.values()].count(0.0) == 6


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
        ({"peer_changes": {"peerz": ["a"]}}, "data.peer_changes.peerz"),
        ({"peer_changes": {"peers": "a"}}, "data.peer_changes.peers"),
        ({"peer_changes": {"peers": []}}, "data.peer_changes.peers"),
        ({"peer_changes": {"peers": ["a", 7]}}, "data.peer_changes.peers[1]"),
        ({"peer_changes": {"peers": ["a" * 201]}}, "data.peer_changes.peers[0]"),
        ({"peer_changes": {"events": ["gone"]}}, "data.peer_changes.events[0]"),
        ({"peer_changes": {"min_interval": 1}}, "data.peer_changes.min_interval"),
        ({"state_changes": {"states": ["leader"]}}, "data.state_changes.states[0]"),
        ({"snapshot": {"min_interval": 1}}, "data.snapshot.min_interval"),
        ({"snapshot": {"x": 1}}, "data.snapshot.x"),
        ({"status": {"x": 1}}, "data.status.x"),
        ({"status": {"min_interval": 0}}, "data.status.min_interval"),
        ({"status": {"min_interval": True}}, "data.status.min_interval"),
        ({"status": {"min_interval": "1"}}, "data.status.min_interval"),
        ({"status": {"min_interval": 1e9}}, "data.status.min_interval"),
        ({"status": {"min_interval": float("nan")}}, "data.status.min_interval"),
        ({"status": {"min_interval": 10**400}}, "data.status.min_interval"),
        ({"status": {"min_interval": -(10**400)}}, "data.status.min_interval"),
        ({"custom_metrics": {"names": ["*a" * 9]}}, "data.custom_metrics.names[0]"),
        ({"latency": {"peers": ["b", "*" * 9]}}, "data.latency.peers[1]"),
        ({"custom_metrics": {"labels": ["env"]}}, "data.custom_metrics.labels"),
        ({"custom_metrics": {"labels": {"env": 1}}}, "data.custom_metrics.labels"),
    ],
)
def test_a_wrong_subscription_is_refused_by_the_name_of_what_is_wrong(data: object, field: str) -> None:
    with pytest.raises(BadSubscription) as refused:
        Subscription.parse(data)
    assert refused.value.field == field


def test_eight_stars_in_a_glob_are_allowed() -> None:
    subscription = Subscription.parse({"custom_metrics": {"names": ["*a" * 8]}})
    assert subscription.filter_for(Topic.CUSTOM_METRICS) is not None


@pytest.mark.parametrize(
    ("names", "accepted"),
    [
        (["a*" + "b" * 126] * 8, True),
        (["a*" + "b" * 126] * 8 + ["c*"], False),
        (["[ab]" + "c" * 124] * 8, True),
        (["[ab]" + "c" * 124] * 9, False),
        (["a*"] * 64, True),
        ([*["a*"] * 63, "b?*"], False),
        (["n" * 200] * 64, True),
        ([*[f"{number:0200}" for number in range(63)], "a*"], True),
    ],
)
def test_globs_are_bounded_in_sum_and_plain_names_are_not(names: list[str], accepted: bool) -> None:
    data = {"custom_metrics": {"names": names}}
    if accepted:
        assert Subscription.parse(data).wants(Topic.CUSTOM_METRICS)
        return
    with pytest.raises(BadSubscription) as refused:
        Subscription.parse(data)
    assert refused.value.field == "data.custom_metrics.names"


def test_plain_names_and_globs_of_one_list_let_the_same_through_as_alone() -> None:
    chosen = Subscription.parse({"custom_metrics": {"names": ["a.b", "c*", "[d]"]}}).filter_for(
        Topic.CUSTOM_METRICS
    )
    assert isinstance(chosen, MetricsFilter)
    names = ("a.b", "axb", "c", "cc", "d", "[d]")
    assert [name for name in names if chosen.selects(name, {})] == ["a.b", "c", "cc", "d"]


def test_a_comma_list_of_types_is_a_subscription() -> None:
    assert Subscription.of_types("status, peer_changes").topics == Topic.STATUS | Topic.PEER_CHANGES
    for wrong in ("", "status,", "statuses"):
        with pytest.raises(BadSubscription):
            Subscription.of_types(wrong)


def test_topics_are_independent_of_each_other() -> None:
    only = Subscription(Topic.SNAPSHOT)
    assert [topic for topic in Topic if only.wants(topic)] == [Topic.SNAPSHOT]
