"""What waits for one client: order, conflation of values, limits, and what is known of the dropped."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from heliosd.hub.send_queue import MAX_QUEUED_BYTES, DroppedEvents, SendQueue
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import NOTHING, Subscription, Topic


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


def popped(box: SendQueue, *, answers_only: bool = False) -> str | None:
    message = box.pop(answers_only=answers_only)
    return None if message is None else message.type


def summary(messages: list[OutgoingMessage]) -> list[tuple[str, int | None]]:
    return [(message.type, message.seq) for message in messages]


def test_messages_come_out_in_the_order_in_which_they_went_in() -> None:
    box = SendQueue(8)
    for message in (event(1), answer(), event(2)):
        assert box.put(message)
    assert summary(drained(box)) == [("custom_metrics", 1), ("pong", None), ("custom_metrics", 2)]


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
    assert summary(drained(box)) == [("custom_metrics", 2)]


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
    assert summary(drained(box)) == [("custom_metrics", 1), ("custom_metrics", 2)]


def test_a_newer_value_finds_room_in_a_full_queue() -> None:
    box = SendQueue(2)
    box.put(value("latency", 1))
    box.put(event(1))
    assert box.put(value("latency", 2))


def test_a_queue_holds_no_more_than_a_mebibyte() -> None:
    box = SendQueue(256)
    half = OutgoingMessage("status", Kind.STATUS, NOTHING, bytes(MAX_QUEUED_BYTES // 2))
    assert box.put(half)
    assert box.put(half)
    assert not box.put(answer())


def boundary(name: str = "gap") -> OutgoingMessage:
    return OutgoingMessage(name, Kind.BOUNDARY, NOTHING, b'{"type":"%s"}' % name.encode())


def status(question: object = UNSET) -> OutgoingMessage:
    payload = json.dumps({"type": "status", "id": None if question is UNSET else question}).encode()
    return OutgoingMessage("status", Kind.STATUS, NOTHING, payload)


def ids(messages: list[OutgoingMessage]) -> list[object]:
    """The ids of the statuses among these."""
    return [json.loads(message.payload)["id"] for message in messages if message.type == "status"]


def resume_stream(box: SendQueue) -> DroppedEvents | None:
    dropped = box.dropped
    box.resume_stream(status, gap=None if dropped is None else boundary())
    return dropped


def test_what_is_dropped_is_named_by_its_first_and_last_number_and_answers_stay() -> None:
    box = SendQueue(8)
    for message in (event(3), value("latency", 1), answer(), event(5)):
        box.put(message)
    box.drop_stream()
    assert box.lost == 2
    assert resume_stream(box) == DroppedEvents(from_seq=3, to_seq=5, events=2)
    assert box.dropped is None
    assert [m.type for m in drained(box)] == ["gap", "status", "pong"]


def test_without_an_event_among_what_is_dropped_only_a_status_takes_its_place() -> None:
    box = SendQueue(8)
    box.put(value("latency", 1))
    box.drop_stream()
    assert resume_stream(box) is None
    assert box.lost == 0
    assert [m.type for m in drained(box)] == ["status"]


def test_until_the_stream_goes_on_events_are_named_and_only_answers_are_queued() -> None:
    box = SendQueue(8)
    box.put(event(1))
    box.drop_stream()
    for message in (event(2), value("latency", 1), answer(), event(3)):
        assert box.put(message)
    assert len(box) == 1
    assert resume_stream(box) == DroppedEvents(from_seq=1, to_seq=3, events=3)
    assert box.lost == 3
    box.put(event(4))
    assert [m.type for m in drained(box)] == ["gap", "status", "pong", "custom_metrics"]


def test_a_gap_that_still_waits_becomes_part_of_the_next_and_its_events_are_lost_once() -> None:
    box = SendQueue(8)
    box.put(event(1))
    box.drop_stream()
    resume_stream(box)
    box.put(event(4))
    box.drop_stream()
    assert resume_stream(box) == DroppedEvents(from_seq=1, to_seq=4, events=2)
    assert box.lost == 2
    assert [m.type for m in drained(box)] == ["gap", "status"]


def test_a_gap_that_went_out_is_not_named_again() -> None:
    box = SendQueue(8)
    box.put(event(1))
    box.drop_stream()
    resume_stream(box)
    box.pop()
    box.put(event(4))
    box.drop_stream()
    assert resume_stream(box) == DroppedEvents(from_seq=4, to_seq=4, events=1)


def test_a_status_that_answers_a_question_is_made_anew_in_its_place() -> None:
    box = SendQueue(8)
    box.put(event(1))
    box.put(answer("pong"))
    box.put(status("q1"), "q1")
    box.put(answer("error"))
    box.drop_stream()
    assert not box.has()  # nothing overtakes the gap
    assert box.pop() is None
    box.refuse(status("q2"), "q2")
    resume_stream(box)
    rest = drained(box)
    assert [m.type for m in rest] == ["gap", "status", "pong", "status", "error", "status"]
    assert ids(rest) == [None, "q1", "q2"]


def test_answers_that_find_no_room_are_noticed() -> None:
    box = SendQueue(2)
    box.put(answer())
    box.put(answer())
    assert not box.put(answer())
    box.drop_stream()
    box.refuse(answer())
    assert box.only_answers


def test_a_welcome_stays_ahead_of_what_is_dropped_after_it_but_not_a_later_epochs() -> None:
    box = SendQueue(8)
    box.put(event(5))
    box.drop_stream(epoch=True)
    box.resume_stream(status, welcome=boundary("welcome"))
    assert box.lost == 1
    box.put(event(1))
    box.drop_stream()
    assert resume_stream(box) == DroppedEvents(from_seq=1, to_seq=1, events=1)
    box.drop_stream(epoch=True)
    box.resume_stream(status, welcome=boundary("welcome"))
    assert [m.type for m in drained(box)] == ["welcome", "status"]
    assert box.lost == 2


def test_a_replay_goes_first_and_is_lost_with_its_epoch() -> None:
    box = SendQueue(2)
    box.put_replay([boundary("welcome"), event(1), event(2), status()])
    box.put(event(3))
    assert (len(box), box.waiting) == (1, 5)
    first = box.pop()
    assert first is not None
    assert first.type == "welcome"
    box.drop_stream(epoch=True)
    assert box.lost == 3
    box.resume_stream(status, welcome=boundary("welcome"))
    assert [m.type for m in drained(box)] == ["welcome", "status"]


def test_a_status_removes_the_values_that_it_contains() -> None:
    box = SendQueue(8)
    for message in (metrics(a=1), value("status_update", 1), value("latency", 1), status(), metrics(b=2)):
        box.put(message)
    out = drained(box)
    assert [m.type for m in out] == ["latency", "status", "custom_metrics"]
    assert list(out[-1].data) == ["b"]


def test_while_held_only_answers_go_and_on_release_they_go_first() -> None:
    box = SendQueue(8)
    box.put_replay([boundary("welcome"), event(1), status()])
    assert popped(box) == "welcome"
    box.put(event(2))
    box.put_gap(boundary(), DroppedEvents(3, 3, 1), status())
    box.put(answer("pong"))
    assert box.has(answers_only=True)
    assert popped(box, answers_only=True) == "pong"
    assert not box.has(answers_only=True)
    assert popped(box, answers_only=True) is None
    box.put(answer("authenticated"))
    box.answers_first()
    types = [m.type for m in drained(box)]
    assert types == ["authenticated", "custom_metrics", "status", "custom_metrics", "gap", "status"]


@pytest.mark.parametrize("replay", [["status"], ["welcome", "custom_metrics", "status"]])
def test_no_answer_goes_ahead_of_the_first_message_though_the_client_is_held(replay: list[str]) -> None:
    made = {"welcome": boundary("welcome"), "custom_metrics": event(1), "status": status()}
    box = SendQueue(8)
    box.put_replay([made[name] for name in replay])
    pong_frame = OutgoingMessage.of_frame("pong frame", b"\x8a\x00")
    for message in (answer("error"), pong_frame):
        box.put(message)
    assert popped(box, answers_only=True) == "pong frame"
    assert not box.has(answers_only=True)
    box.put(answer("authenticated"))
    box.answers_first()
    assert [m.type for m in drained(box)] == [replay[0], "error", "authenticated", *replay[1:]]


@pytest.mark.parametrize("resumed", [True, False])
def test_nor_ahead_of_the_welcome_of_a_new_epoch_that_takes_its_place(resumed: bool) -> None:
    box = SendQueue(8)
    box.put_replay([boundary("welcome"), event(1), status()])
    box.put(answer("error"))
    box.drop_stream(epoch=True)
    if not resumed:
        box.answers_first()
    box.resume_stream(status, welcome=boundary("welcome"))
    if resumed:
        box.answers_first()
    expected = ["welcome", "error", "status"] if resumed else ["welcome", "status", "error"]
    assert [m.type for m in drained(box)] == expected


def test_an_answer_that_was_to_follow_the_first_message_follows_the_welcome_that_takes_its_place() -> None:
    box = SendQueue(8)
    box.put_replay([status()])
    for name in ("error", "authenticated"):
        box.put(answer(name))
        box.answers_first()
    box.drop_stream(epoch=True)
    box.put(answer("pong"))
    box.resume_stream(status, welcome=boundary("welcome"))
    assert [m.type for m in drained(box)] == ["welcome", "status", "error", "authenticated", "pong"]


def test_answers_to_two_new_tokens_before_the_first_message_keep_their_order() -> None:
    box = SendQueue(8)
    box.put_replay([boundary("welcome"), event(1), status()])
    for name in ("error", "authenticated"):
        box.put(answer(name))
        box.answers_first()
    types = [m.type for m in drained(box)]
    assert types == ["welcome", "error", "authenticated", "custom_metrics", "status"]


def test_a_status_without_an_id_keeps_its_place_among_the_answers_when_the_queue_overflows() -> None:
    box = SendQueue(3)
    box.put(event(1))
    box.put(answer("subscribed"))
    box.put(status(), None)
    assert not box.put(event(2))
    box.drop_stream()
    box.refuse(event(2))
    assert resume_stream(box) == DroppedEvents(1, 2, 2)
    assert [m.type for m in drained(box)] == ["gap", "status", "subscribed", "status"]


def test_a_snapshot_that_comes_while_the_queue_drops_is_the_one_that_follows_the_gap() -> None:
    box = SendQueue(8)
    box.put(event(1))
    box.drop_stream()
    assert box.put(status())
    resume_stream(box)
    assert [m.type for m in drained(box)] == ["gap", "status"]


def test_events_that_were_lost_while_the_queue_was_dropping_are_named_in_their_order() -> None:
    box = SendQueue(2)
    for seq in (1, 2):
        box.put(event(seq))
    box.drop_stream()
    box.put_gap(boundary(), DroppedEvents(3, 5, 3), status())
    box.put(event(6))
    box.drop_stream()
    assert box.dropped == DroppedEvents(1, 6, 6)
    assert resume_stream(box) == DroppedEvents(1, 6, 6)
    assert [m.type for m in drained(box)] == ["gap", "status"]


def test_a_new_subscription_removes_values_and_for_a_held_client_events_that_it_does_not_want() -> None:
    only_a = Subscription.parse({"custom_metrics": {"names": ["a"]}})
    for events, expected in ((False, [["x"], ["y"], ["a"]]), (True, [["a"]])):
        box = SendQueue(8)
        box.put_replay([event(1, {"x": None})])
        box.put(event(2, {"y": None}))
        box.put(metrics(a=1, b=2))
        box.narrow(only_a, events=events)
        out = drained(box)
        assert [list(m.data) for m in out] == expected


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
    for seq in range(1, 30):
        if not box.put(event(seq)):
            box.drop_stream()
            box.refuse(event(seq))
            dropped = resume_stream(box)
            assert dropped is not None
            lost = [*[n for n in lost if n < dropped.from_seq], *range(dropped.from_seq, dropped.to_seq + 1)]
        if data.draw(st.booleans()):
            message = box.pop()
            if message is not None and message.seq is not None:
                out.append(message.seq)
    out += [message.seq for message in drained(box) if message.seq is not None]
    assert sorted(out + lost) == list(range(1, 30))
    assert out == sorted(out)
