"""A snapshot goes from a leader to a follower in chunks (paper, figure 13)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliosd.raft.messages import AppendAnswer, AppendEntries, InstallAnswer, InstallSnapshot, Snapshot
from heliosd.raft.snapshot_chunks import IncomingSnapshot, chunk_of
from tests.support.raft_nodes import ABC, TIMING, Stage

STATE = Snapshot(7, 3, ABC, b"abcdefgh")


def chunks(snapshot: Snapshot = STATE, term: int = 4) -> list[InstallSnapshot]:
    """In parts of 3 bytes."""
    offsets = range(0, len(snapshot.data), 3)
    return [chunk_of(snapshot, term=term, offset=offset, size=3, now=0) for offset in offsets]


def sending() -> Stage:
    """A leader that has sent the first chunk of 3 bytes of b"abcdefgh" to c."""
    stage = Stage(chunk_bytes=3)
    stage.lead()
    stage.accept("b", 2)
    stage.raft.compact(stage.now, b"abcdefgh")
    stage.take()
    stage.receive("c", AppendAnswer(2, False, 0, 1, 1, 0, stage.now))
    return stage


def taken(stage: Stage) -> list[tuple[int, bytes, bool]]:
    return [
        (message.offset, message.snapshot.data, message.done)
        for _, message in stage.take()
        if isinstance(message, InstallSnapshot)
    ]


def test_a_leader_sends_the_next_chunk_once_the_last_one_is_answered() -> None:
    stage = sending()
    assert taken(stage) == [(0, b"abc", False)]
    stage.receive("c", InstallAnswer(2, 0, stage.now, received=3))
    assert taken(stage) == [(3, b"def", False)]
    stage.receive("c", InstallAnswer(2, 0, stage.now, received=3))
    assert taken(stage) == [], "a repeated answer sends nothing"
    stage.receive("c", InstallAnswer(2, 0, stage.now, received=6))
    assert taken(stage) == [(6, b"gh", True)]
    stage.propose(b"x")
    stage.take()
    stage.receive("c", InstallAnswer(2, 2, stage.now))
    [(_, message)] = stage.take()
    assert isinstance(message, AppendEntries)
    assert [entry.index for entry in message.entries] == [3]


def test_a_lost_chunk_is_sent_again_and_a_follower_that_has_lost_all_begins_anew() -> None:
    stage = sending()
    stage.receive("c", InstallAnswer(2, 0, stage.now, received=3))
    stage.take()
    for _ in range(12):  # b answers, so that the leader stays
        stage.wait(TIMING.heartbeat)
        stage.accept("b", 2)
    assert set(taken(stage)) == {(3, b"def", False)}
    stage.receive("c", InstallAnswer(2, 0, stage.now, received=0))
    assert taken(stage) == [(0, b"abc", False)]


def test_a_snapshot_in_transfer_stays_the_same_when_the_leader_takes_a_newer_one() -> None:
    stage = sending()
    stage.propose(b"x")
    stage.write()
    stage.accept("b", 3)
    stage.raft.compact(stage.now, b"ABCDEFGH")
    stage.take()
    stage.receive("c", InstallAnswer(2, 0, stage.now, received=3))
    assert taken(stage) == [(3, b"def", False)]
    stage.receive("c", InstallAnswer(2, 0, stage.now, received=6))
    stage.receive("c", InstallAnswer(2, 2, stage.now))
    assert taken(stage)[-1] == (0, b"ABC", False), "then the newer one, as its entries are gone"


def test_a_follower_installs_a_snapshot_once_its_last_chunk_is_there() -> None:
    stage = Stage()
    first, second, third = chunks()
    for chunk, received in ((first, 3), (third, 3), (second, 6), (second, 6)):
        assert stage.receive("b", chunk).installed is None
        stage.write()
        assert stage.take() == [("b", InstallAnswer(4, 0, 0, received))]
    assert stage.receive("b", third).installed == STATE
    stage.write()
    assert stage.take() == [("b", InstallAnswer(4, 7, 0))]


def test_chunks_of_two_leaders_are_never_joined() -> None:
    incoming = IncomingSnapshot()
    of_old, of_new = chunks(), chunks(Snapshot(7, 3, ABC, b"ABCDEFGH"), term=5)
    assert incoming.add(of_old[0]) is None
    assert incoming.add(of_new[1]) is None
    assert incoming.received == 0
    assert [incoming.add(chunk) for chunk in of_new][-1] == Snapshot(7, 3, ABC, b"ABCDEFGH")


@given(st.binary(max_size=20), st.integers(1, 7), st.lists(st.integers(0, 20), max_size=40))
def test_chunks_in_any_order_give_the_snapshot_or_nothing(data: bytes, size: int, order: list[int]) -> None:
    snapshot = Snapshot(7, 3, ABC, data)
    offsets = range(0, max(1, len(data)), size)
    parts = [chunk_of(snapshot, term=4, offset=offset, size=size, now=0) for offset in offsets]
    incoming = IncomingSnapshot()
    for place in order:
        assert incoming.add(parts[place % len(parts)]) in (None, snapshot)
    assert [incoming.add(part) for part in parts][-1] == snapshot


def test_what_waits_for_a_write_is_shown_and_sent_only_once_it_is_durable() -> None:
    stage = Stage()
    ready = stage.receive("b", chunks()[0])
    assert ready.write is not None
    [held] = ready.held_back
    assert (held.after, held.envelope.message) == (ready.write.number, InstallAnswer(4, 0, 0, 3))
    assert not ready.sends
    assert stage.write().sends == (held.envelope,)
