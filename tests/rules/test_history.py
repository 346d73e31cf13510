"""The order of events: numbers without a hole, and what can be replayed."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.protocol.history import MAX_REPLAY_BYTES, MAX_REPLAY_EVENTS, Cursor, Excerpt, History
from heliosd.protocol.message import OutgoingMessage, replayed
from heliosd.protocol.subscription import EVERYTHING, Subscription, Topic


def event(seq: int, at: float = 0.0, name: str = "peer_change", filler: int = 0) -> OutgoingMessage:
    payload = json.dumps({"type": name, "seq": seq, "data": {"x": "x" * filler}}).encode()
    return replayed(seq=seq, at=at, name=name, payload=payload)


def history(count: int, max_events: int = 5000, filler: int = 0) -> History:
    made = History("e1", max_events, 3600.0)
    for seq in range(1, count + 1):
        made.keep(event(seq, filler=filler), 0.0)
    return made


def seqs(events: tuple[OutgoingMessage, ...]) -> list[int | None]:
    return [message.seq for message in events]


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 80))
def test_a_replay_is_everything_after_the_cursor_or_a_refusal(
    count: int, max_events: int, after: int
) -> None:
    made = history(count, max_events)
    oldest = max(1, count - max_events + 1)
    assert made.oldest_seq == oldest
    replay = made.since(Cursor("e1", after), Subscription())
    if after > count:
        assert replay.refusal == "ahead"
    elif after < oldest - 1:
        assert replay.refusal == "too_old"
    else:
        assert (seqs(replay.events), replay.refusal) == (list(range(after + 1, count + 1)), None)


def test_another_epoch_is_refused_whatever_the_number() -> None:
    assert history(3).since(Cursor("e2", 3), Subscription()).refusal == "epoch_changed"


def test_asking_for_now_replays_nothing_and_is_not_refused() -> None:
    replay = history(3).since(Cursor(), Subscription())
    assert (replay.events, replay.refusal) == ((), None)


def test_a_replay_is_cut_for_the_subscription_before_it_is_counted() -> None:
    made = History("e1", 5000, 3600.0)
    for seq in range(1, 2001):
        made.keep(event(seq, name="snapshot" if seq % 100 == 0 else "peer_change"), 0.0)
    replay = made.since(Cursor("e1", 0), Subscription(Topic.SNAPSHOT))
    assert seqs(replay.events) == list(range(100, 2001, 100))
    assert made.since(Cursor("e1", 0), Subscription(EVERYTHING)).refusal == "too_many"


def test_a_replay_is_at_most_a_thousand_events() -> None:
    made = history(MAX_REPLAY_EVENTS + 1)
    assert len(made.since(Cursor("e1", 1), Subscription()).events) == MAX_REPLAY_EVENTS
    assert made.since(Cursor("e1", 0), Subscription()).refusal == "too_many"


def test_a_replay_is_at_most_a_mebibyte() -> None:
    made = history(3, filler=MAX_REPLAY_BYTES // 2)
    assert len(made.since(Cursor("e1", 2), Subscription()).events) == 1
    assert made.since(Cursor("e1", 0), Subscription()).refusal == "too_many"


@given(st.integers(0, 60), st.integers(1, 30), st.integers(1, 9), st.integers(1, 5))
def test_a_page_that_is_read_a_little_at_a_time_is_the_same(
    count: int, max_events: int, limit: int, at_most: int
) -> None:
    made = history(count, max_events)
    whole, parts = (Excerpt(made.oldest_seq - 1, limit, Subscription()) for _ in range(2))
    assert not whole.read(made)
    while parts.read(made, at_most):
        pass
    assert parts.events == whole.events == list(made.kept())[:limit]
    assert (parts.more, parts.looked_at) == (whole.more, whole.looked_at)
    assert whole.more == (len(made.kept()) > limit)


def test_what_was_looked_at_for_a_filter_takes_no_memory_afterwards() -> None:
    made = History("e1", 5000, 3600.0)
    for seq in range(1, 3001):
        payload = json.dumps({"data": {"peer_id": "b", "event_type": "added", "n": [seq] * 9}}).encode()
        made.keep(replayed(seq=seq, at=0.0, name="peer_change", payload=payload), 0.0)
    wanted = Subscription.parse({"peer_changes": {"peers": ["a"]}})
    tracemalloc.start()
    assert made.since(Cursor("e1", 0), wanted).events == ()
    assert tracemalloc.get_traced_memory()[0] < 200_000
    tracemalloc.stop()


def test_what_is_too_old_is_forgotten() -> None:
    made = History("e1", 100, 60.0)
    for seq in range(1, 11):
        made.keep(event(seq, at=float(seq)), float(seq))
    made.expire(65.5)
    assert made.oldest_seq == 6
    made.expire(1e9)
    assert (made.oldest_seq, made.seq) == (11, 10)
    assert made.since(Cursor("e1", 10), Subscription()).refusal is None
    assert made.since(Cursor("e1", 9), Subscription()).refusal == "too_old"


def test_a_number_that_does_not_follow_is_refused() -> None:
    with pytest.raises(ValueError, match="does not follow"):
        history(3).keep(event(5), 0.0)


def test_a_new_epoch_starts_with_number_one() -> None:
    made = history(3)
    made.restart("e2")
    made.keep(event(1), 0.0)
    assert (made.epoch, made.seq, made.oldest_seq) == ("e2", 1, 1)


@pytest.mark.parametrize("epoch", ["", "x" * 65, "a b", "é", "a:b"])
def test_what_a_client_could_not_send_back_is_no_epoch(epoch: str) -> None:
    with pytest.raises(ValueError, match="epoch"):
        History(epoch, 10, 10.0)
