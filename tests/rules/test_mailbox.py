"""What waits for one client: order, replacement of values, limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliosd.hub.mailbox import MAX_QUEUED_BYTES, Mailbox


def test_frames_come_out_in_the_order_in_which_they_went_in() -> None:
    box = Mailbox(8)
    for frame in (b"a", b"b", b"c"):
        assert box.put(frame)
    assert box.take(100) == b"abc"
    assert len(box) == box.size == 0


def test_a_newer_value_removes_the_older_one_and_goes_to_the_end() -> None:
    box = Mailbox(8)
    box.put(b"old-status", "status_update")
    box.put(b"event")
    box.put(b"new-status", "status_update")
    assert box.take(100) == b"eventnew-status"


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    box = Mailbox(2)
    assert box.put(b"1")
    assert box.put(b"2")
    assert not box.put(b"3")
    assert box.take(100) == b"12"


def test_a_newer_value_finds_room_in_a_full_queue() -> None:
    box = Mailbox(2)
    box.put(b"old", "latency")
    box.put(b"event")
    assert box.put(b"new", "latency")
    assert box.take(100) == b"eventnew"


def test_a_queue_holds_no_more_than_a_mebibyte() -> None:
    box = Mailbox(256)
    half = bytes(MAX_QUEUED_BYTES // 2)
    assert box.put(half)
    assert box.put(half)
    assert not box.put(b"x")


def test_last_words_are_taken_even_when_the_queue_is_full() -> None:
    box = Mailbox(1)
    box.put(b"event")
    box.put_last_words(b"close")
    assert box.take(100) == b"eventclose"


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([None, None, "a", "b"]))),
    st.integers(1, 60),
)
def test_whatever_went_in_comes_out_whole_once_and_in_order(
    puts: list[tuple[bytes, str | None]], at_most: int
) -> None:
    box = Mailbox(16)
    expected: list[tuple[bytes, str | None]] = []
    for frame, name in puts:
        if name is not None:
            expected = [item for item in expected if item[1] != name]
        if len(expected) < 16:
            expected.append((frame, name))
            assert box.put(frame, name)
        else:
            assert not box.put(frame, name)
    assert box.size == sum(len(frame) for frame, _ in expected)
    batches = []
    while box:
        batches.append(box.take(at_most))
        assert batches[-1]
    assert b"".join(batches) == b"".join(frame for frame, _ in expected)
    assert box.size == 0
