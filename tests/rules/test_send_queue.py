"""What waits for one client: order, conflation of values, limits, and what is known of the dropped."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.hub.send_queue import MAX_QUEUED_BYTES, DroppedMessages, SendQueue
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import NOTHING, Topic


def event(seq: int, data: object = None) -> OutgoingMessage:
    payload = json.dumps(
        {"type": "custom_metrics", "timestamp": "t", "seq": seq, "data": data or {}}
    ).encode()
    return OutgoingMessage("custom_metrics", Kind.EVENT, Topic.CUSTOM_METRICS, payload, seq)


def value(name: str, number: int) -> OutgoingMessage:
    payload = json.dumps({"type": name, "timestamp": "t", "data": {"n": number}}).encode()
    return OutgoingMessage(name, Kind.VALUE, Topic.STATUS, payload)


def metrics(**values: int) -> OutgoingMessage:
    data = {name: {"value": number, "labels": {}} for name, number in values.items()}
    payload = json.dumps({"type": "custom_metrics", "timestamp": "t", "data": data}).encode()
    return OutgoingMessage("custom_metrics", Kind.VALUE, Topic.CUSTOM_METRICS, payload)


def answer(name: str = "pong") -> OutgoingMessage:
    return OutgoingMessage(name, Kind.CONTROL, NOTHING, b'{"type":"%s"}' % name.encode())


def drained(box: SendQueue) -> list[OutgoingMessage]:
    messages = []
    while (message := box.pop()) is not None:
        messages.append(message)
    assert box.size == 0
    return messages


def told(messages: list[OutgoingMessage]) -> list[tuple[str, int | None]]:
    return [(message.type, message.seq) for message in messages]


def test_messages_come_out_in_the_order_in_which_they_went_in() -> None:
    box = SendQueue(8)
    for message in (event(1), answer(), event(2)):
        assert box.put(message)
    assert told(drained(box)) == [("custom_metrics", 1), ("pong", None), ("custom_metrics", 2)]


def test_a_newer_value_removes_the_older_one_and_goes_to_the_end() -> None:
    box = SendQueue(8)
    for message in (value("latency", 1), event(1), value("latency", 2)):
        box.put(message)
    first, second = drained(box)
    assert (first.seq, second.data) == (1, {"n": 2})


def test_values_of_custom_metrics_merge_by_name() -> None:
    box = SendQueue(8)
    for message in (metrics(a=1, b=1), event(1), metrics(b=2, c=2)):
        box.put(message)
    _, merged = drained(box)
    assert {name: view["value"] for name, view in merged.data.items()} == {"a": 1, "b": 2, "c": 2}


def test_a_deletion_drops_the_pending_values_of_its_metric_and_only_those() -> None:
    box = SendQueue(8)
    box.put(metrics(a=1, b=1))
    box.put(event(1, {"a": None}))
    first, second = drained(box)
    assert (list(first.data), second.seq) == (["b"], 1)
    box.put(metrics(a=1))
    box.put(event(2, {"a": None}))
    assert told(drained(box)) == [("custom_metrics", 2)]


def test_a_registration_leaves_pending_values_alone() -> None:
    box = SendQueue(8)
    box.put(metrics(a=1))
    box.put(event(1, {"b": {"value": 0, "labels": {}}}))
    assert [list(message.data) for message in drained(box)] == [["a"], ["b"]]


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    box = SendQueue(2)
    assert box.put(event(1))
    assert box.put(event(2))
    assert not box.put(event(3))
    assert told(drained(box)) == [("custom_metrics", 1), ("custom_metrics", 2)]


def test_a_newer_value_finds_room_in_a_full_queue() -> None:
    box = SendQueue(2)
    box.put(value("latency", 1))
    box.put(event(1))
    assert box.put(value("latency", 2))


def test_a_queue_holds_no_more_than_a_mebibyte() -> None:
    box = SendQueue(256)
    half = OutgoingMessage("status", Kind.SNAPSHOT, NOTHING, bytes(MAX_QUEUED_BYTES // 2))
    assert box.put(half)
    assert box.put(half)
    assert not box.put(answer())


def test_what_is_dropped_is_known_by_its_first_and_last_number_and_answers_stay() -> None:
    box = SendQueue(8)
    for message in (event(3), value("latency", 1), answer(), event(5)):
        box.put(message)
    assert box.drop() == DroppedMessages(from_seq=3, to_seq=5, events=2)
    assert told(drained(box)) == [("pong", None)]
    assert box.drop() is None


def test_gaps_that_were_not_told_yet_merge() -> None:
    box = SendQueue(8)
    box.put(event(1))
    first = box.drop()
    assert first is not None
    box.put_gap(answer("gap"), first, answer("status"))
    box.put(event(4))
    assert box.untold == 1
    assert box.drop() == DroppedMessages(from_seq=1, to_seq=4, events=2)


def test_a_gap_that_went_out_is_not_told_again() -> None:
    box = SendQueue(8)
    box.put(event(1))
    first = box.drop()
    assert first is not None
    box.put_gap(answer("gap"), first, answer("status"))
    box.pop()
    box.put(event(4))
    assert box.untold == 0
    assert box.drop() == DroppedMessages(from_seq=4, to_seq=4, events=1)


def test_for_an_expired_token_only_answers_go_and_no_gap() -> None:
    box = SendQueue(8)
    box.put(event(1))
    first = box.drop()
    assert first is not None
    box.put_gap(answer("gap"), first, event(2))
    box.put(answer("authenticated"))
    message = box.pop(answers_only=True)
    assert message is not None
    assert message.type == "authenticated"
    assert not box.has(answers_only=True)
    assert box.pop(answers_only=True) is None
    assert [m.type for m in drained(box)] == ["gap", "custom_metrics"]


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.dictionaries(NAMES, st.integers(), min_size=1)),
        st.tuples(st.just("delete"), NAMES),
        st.tuples(st.just("pop"), st.none()),
    ),
    max_size=60,
)


@given(STEPS)
def test_conflation_never_loses_a_metrics_last_value(steps: list[tuple[str, object]]) -> None:
    """Whoever takes all that comes out ends where whoever saw every change ends."""
    box = SendQueue(1000)
    truth: dict[str, int] = {}
    seen: dict[str, int] = {}
    seq = 0

    def take(message: OutgoingMessage) -> None:
        for name, view in message.data.items():
            if view is None:
                seen.pop(name, None)
            else:
                seen[name] = view["value"]

    for step, what in steps:
        if step == "set":
            assert isinstance(what, dict)
            truth |= what
            assert box.put(metrics(**what))
        elif step == "delete":
            assert isinstance(what, str)
            seq += 1
            truth.pop(what, None)
            assert box.put(event(seq, {what: None}))
        elif (message := box.pop()) is not None:
            take(message)
    for message in drained(box):
        take(message)
    assert seen == truth


@pytest.mark.parametrize("limit", [1, 3])
@given(data=st.data())
def test_every_event_comes_out_once_in_order_or_is_named_as_dropped(limit: int, data: st.DataObject) -> None:
    box = SendQueue(limit)
    out: list[int] = []
    lost: list[int] = []
    gaps = 0
    for seq in range(1, 30):
        if not box.put(event(seq)):
            dropped = box.drop()
            one = DroppedMessages(seq, seq, 1)
            dropped = one if dropped is None else dropped.and_then(one)
            box.put_gap(answer("gap"), dropped, answer("status"))
            lost = [*[n for n in lost if n < dropped.from_seq], *range(dropped.from_seq, dropped.to_seq + 1)]
        if data.draw(st.booleans()):
            message = box.pop()
            if message is not None and message.seq is not None:
                out.append(message.seq)
            gaps += message is not None and message.type == "gap"
    out += [message.seq for message in drained(box) if message.seq is not None]
    assert sorted(out + lost) == list(range(1, 30))
    assert out == sorted(out)
