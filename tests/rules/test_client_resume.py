"""Following: nothing twice, nothing out of order, and nothing missing in silence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.client.resume import HOLE, Gap, Message, OutOfOrder, ResumeState, cursor_text, parse_cursor, read
from heliosd.errors import NotUnderstood
from heliosd.protocol.history import Cursor


def message(name: str, data: object = None, seq: int | None = None) -> Message:
    body: dict[str, Any] = {"type": name, "timestamp": "2026-11-23T05:19:10.000000Z"}
    if seq is not None:
        body["seq"] = seq
    if data is not None:
        body["data"] = data
    return read(json.dumps(body))


def welcome(
    seq: int, *, epoch: str = "A", recovered: bool = True, reason: str | None = None, replayed: int = 0
) -> Message:
    return message(
        "welcome",
        {
            "client_id": "c",
            "epoch": epoch,
            "seq": seq,
            "oldest_seq": 1,
            "recovered": recovered,
            "reason": reason,
            "replayed": replayed,
            "expires_at": "2026-11-23T13:00:00.000000Z",
            "new_in_a_later_version": 1,
        },
    )


def status(as_of: int) -> Message:
    return message("status", {"as_of_seq": as_of})


def event(seq: int) -> Message:
    return message("peer_change", {"peer_id": f"node-{seq}"}, seq)


def gap(from_seq: int, to_seq: int) -> Message:
    return message("gap", {"from_seq": from_seq, "to_seq": to_seq, "dropped": 1, "reason": "slow_consumer"})


def seen(following: ResumeState, *messages: Message) -> list[int | tuple[int, int, str]]:
    """What is seen of some messages: the numbers of events, and gaps."""
    items: list[int | tuple[int, int, str]] = []
    for item in [item for each in messages for item in following.take(each)]:
        if isinstance(item, Gap):
            items.append((item.from_seq, item.to_seq, item.reason))
        elif item.seq is not None:
            items.append(item.seq)
    return items


def started(*, seq: int = 10, whole: bool = True, since: Cursor | None = None) -> ResumeState:
    following = ResumeState(since, whole=whole)
    following.connected()
    if since is None:
        seen(following, welcome(seq), status(seq))
    return following


def test_it_begins_now_and_then_goes_on_where_it_stopped() -> None:
    following = ResumeState(None, whole=True)
    assert following.cursor is None
    assert following.query() == {"after": "now"}
    following.connected()
    assert seen(following, welcome(10), status(10), event(11), event(12)) == [11, 12]
    assert following.cursor == Cursor("A", 12)
    assert following.query() == {"epoch": "A", "after": "12"}


def test_what_a_resumed_connection_repeats_is_dropped() -> None:
    following = started()
    assert seen(following, event(11), event(12)) == [11, 12]
    following.connected()
    assert seen(following, welcome(13, replayed=3), event(11), event(12), event(13), status(13)) == [13]


def test_values_and_answers_pass_through() -> None:
    following = started()
    value = message("latency", {"peers": {}})
    assert following.take(value) == [value]
    assert following.cursor == Cursor("A", 10)


def test_the_daemons_gap_is_returned_as_it_was_sent() -> None:
    following = started()
    sent = gap(11, 15)
    assert following.take(sent) == [Gap("A", 11, 15, "slow_consumer", dropped=1, raw=sent.raw)]
    assert seen(following, status(15), event(16)) == [16]


@pytest.mark.parametrize("reason", ["too_old", "ahead"])
def test_what_could_not_be_replayed_is_a_gap(reason: str) -> None:
    following = started(since=Cursor("A", 5))
    assert seen(following, welcome(9, recovered=False, reason=reason)) == [(6, 9, reason)]
    assert following.cursor == Cursor("A", 9)
    assert seen(following, status(9), event(10)) == [10]


def test_another_epoch_is_a_gap_between_two_counts() -> None:
    following = started(since=Cursor("A", 500))
    (_, lost) = following.take(welcome(3, epoch="B", recovered=False, reason="epoch_changed"))
    assert lost == Gap("B", 501, 3, "epoch_changed", previous_epoch="A")
    assert seen(following, status(3), event(4)) == [4]
    assert following.cursor == Cursor("B", 4)


def test_an_epoch_that_changes_on_an_open_connection_gives_a_gap_too() -> None:
    following = started()
    (_, lost) = following.take(welcome(0, epoch="B", recovered=False, reason="epoch_changed"))
    assert isinstance(lost, Gap)
    assert seen(following, status(0), event(1), event(2)) == [1, 2]
    assert following.cursor == Cursor("B", 2)


def test_another_epoch_is_a_gap_even_if_the_daemon_claims_that_nothing_is_missing() -> None:
    following = started(since=Cursor("A", 5))
    assert seen(following, welcome(9, epoch="B")) == [(6, 9, "epoch_changed")]


def test_a_hole_that_the_daemon_did_not_announce_gives_a_gap_in_its_place() -> None:
    assert seen(started(), event(11), event(14)) == [11, (12, 13, HOLE), 14]
    assert seen(started(), event(11), gap(14, 20)) == [11, (12, 13, HOLE), (14, 20, "slow_consumer")]
    assert seen(started(), event(11), status(13)) == [11, (12, 13, HOLE)]


def test_a_replay_that_is_shorter_than_promised_is_a_hole() -> None:
    following = started(since=Cursor("A", 5), whole=False)
    assert seen(following, welcome(9, replayed=2), event(7), status(9)) == [7, (8, 9, HOLE)]


def test_with_filters_numbers_may_be_missing_and_the_cursor_moves_on() -> None:
    following = started(since=Cursor("A", 5), whole=False)
    assert seen(following, welcome(90, replayed=1), event(7), status(90), event(95)) == [7, 95]
    following = started(since=Cursor("A", 5), whole=False)
    seen(following, welcome(90, replayed=1), event(7))
    assert following.cursor == Cursor("A", 7)  # what is left of the replay is not here yet
    seen(following, status(90))
    assert following.cursor == Cursor("A", 90)


def test_too_many_events_come_from_the_history() -> None:
    following = started(since=Cursor("A", 5))
    assert seen(following, welcome(9, recovered=False, reason="too_many")) == []
    assert following.missing_until == 9
    assert seen(following, event(6), event(7), event(8), event(9)) == [6, 7, 8, 9]
    assert following.caught_up() == []
    assert seen(following, status(9), event(10)) == [10]


def test_a_history_that_ends_early_leaves_a_gap() -> None:
    following = started(since=Cursor("A", 5))
    seen(following, welcome(9, recovered=False, reason="too_many"), event(6))
    assert following.give_up() == Gap("A", 7, 9, "too_many")
    following = started(since=Cursor("A", 5))
    seen(following, welcome(9, recovered=False, reason="too_many"), event(6))
    assert following.caught_up() == [Gap("A", 7, 9, HOLE)]


def test_a_connection_cut_while_catching_up_goes_on_there() -> None:
    following = started(since=Cursor("A", 5))
    seen(following, welcome(9, recovered=False, reason="too_many"), event(6))
    following.connected()
    assert following.query() == {"epoch": "A", "after": "6"}
    assert following.missing_until is None


def test_a_number_that_had_its_turn_makes_the_connection_useless() -> None:
    following = started()
    seen(following, event(11), event(12))
    for again in (12, 11, 3):
        with pytest.raises(OutOfOrder):
            following.take(event(again))
    assert following.cursor == Cursor("A", 12)


def test_a_connection_begins_with_welcome() -> None:
    following = ResumeState(None, whole=True)
    following.connected()
    with pytest.raises(NotUnderstood):
        following.take(status(1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"x"',
        "{}",
        '{"type":1}',
        '{"type":"x","seq":"1"}',
        '{"type":"x","seq":1.5}',
        "[" * 9999,
    ],
)
def test_what_is_no_message_is_not_understood(text: str) -> None:
    with pytest.raises(NotUnderstood):
        read(text)


@pytest.mark.parametrize("name", ["welcome", "gap"])
@pytest.mark.parametrize("data", [None, {}, [], {"epoch": 1}, {"from_seq": "a"}])
def test_a_welcome_or_a_gap_without_its_fields_is_not_understood(name: str, data: object) -> None:
    with pytest.raises(NotUnderstood):
        started().take(message(name, data))


def test_a_message_keeps_the_bytes_that_came() -> None:
    text = '{"type": "x", "data": {"ä": 1}, "new": true}'
    assert read(text).raw == text
    assert read(text.encode()).raw == text


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.integers(0, 2**53 - 1))
def test_a_cursor_survives_being_written_down(epoch: str, seq: int) -> None:
    assert parse_cursor(cursor_text(Cursor(epoch, seq))) == Cursor(epoch, seq)


@pytest.mark.parametrize(
    "text", ["", ":", "A", "A:", ":1", "A:x", "A:-1", "A: 1", "A:1.0", "A:9007199254740992", "a b:1", "A:١"]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"EPOCH:SEQ|2\^53"):
        parse_cursor(text)


class World:
    """A daemon whose messages are right, on a connection that breaks at any moment."""

    def __init__(self, modulus: int) -> None:
        self.modulus = modulus  # the subscription: every how many-th event
        self.epoch, self.seq, self.oldest = "A", 0, 1
        self.line: list[Message] = []
        self.replay = 0
        """How much of the line is an answer to a connection, which no overflow drops."""
        self.had: dict[tuple[str, int], int] = {}
        self.excused: set[tuple[str, int]] = set()
        self.last: dict[str, int] = {"A": 0}
        self.following = ResumeState(None, whole=modulus == 1)
        self.connect()

    def wanted(self, seq: int) -> bool:
        return seq % self.modulus == 0

    def happen(self) -> None:
        self.seq += 1
        self.last[self.epoch] = self.seq
        if self.wanted(self.seq):
            self.line.append(event(self.seq))

    def overflow(self) -> None:
        """What waits is dropped, with a gap; a gap that was not sent yet merges with it. A replay stays."""
        queue = self.line[self.replay :]
        dropped = [m.seq for m in queue if m.seq is not None]
        for waiting in queue:
            if waiting.type == "gap":
                dropped += [waiting.data["from_seq"], waiting.data["to_seq"]]
        if dropped:
            self.line[self.replay :] = [gap(min(dropped), max(dropped)), status(self.seq)]

    def restart(self) -> None:
        self.epoch, self.seq, self.oldest = chr(ord(self.epoch) + 1), 0, 1
        self.last[self.epoch] = 0
        self.connect()

    def connect(self) -> None:
        self.line = self.answer()
        self.replay = len(self.line)

    def answer(self) -> list[Message]:
        asked = self.following.query()
        self.following.connected()
        if asked == {"after": "now"}:
            self.begun = self.seq
            return [welcome(self.seq, epoch=self.epoch), status(self.seq)]
        after = int(asked["after"])
        if asked["epoch"] != self.epoch:
            refusal = "epoch_changed"
        elif after < self.oldest - 1:
            refusal = "too_old"
        else:
            replay = [event(seq) for seq in range(after + 1, self.seq + 1) if self.wanted(seq)]
            return [
                welcome(self.seq, epoch=self.epoch, replayed=len(replay)),
                *replay,
                status(self.seq),
            ]
        return [
            welcome(self.seq, epoch=self.epoch, recovered=False, reason=refusal),
            status(self.seq),
        ]

    def deliver(self, number: int) -> None:
        for _ in range(min(number, len(self.line))):
            self.replay = max(0, self.replay - 1)
            for item in self.following.take(self.line.pop(0)):
                self.check(item)

    def check(self, item: Message | Gap) -> None:
        if isinstance(item, Message):
            if item.seq is not None:
                cursor = self.following.cursor
                assert cursor is not None
                key = (cursor.epoch, item.seq)
                assert key not in self.had, "twice"
                assert key not in self.excused, "reported missing, and yet it came"
                self.had[key] = item.seq
            return
        assert item.reason != HOLE, "this daemon leaves no hole"
        if item.previous_epoch is None:
            self.excused |= {(item.epoch, seq) for seq in range(item.from_seq, item.to_seq + 1)}
            return
        epochs = [e for e in self.last if item.previous_epoch <= e < item.epoch]
        for epoch in epochs:
            first = item.from_seq if epoch == item.previous_epoch else 1
            self.excused |= {(epoch, seq) for seq in range(first, self.last[epoch] + 1)}
        self.excused |= {(item.epoch, seq) for seq in range(1, item.to_seq + 1)}

    def settle(self) -> None:
        self.deliver(len(self.line))
        for epoch, last in self.last.items():
            for seq in range(1, last + 1):
                if self.wanted(seq) and not (epoch == "A" and seq <= self.begun):
                    key = (epoch, seq)
                    assert (key in self.had) != (key in self.excused), f"{key} is missing in silence"


ACTIONS = st.one_of(
    st.tuples(st.just("happen"), st.integers(1, 6)),
    st.tuples(st.just("deliver"), st.integers(1, 8)),
    st.tuples(st.just("cut"), st.just(0)),
    st.tuples(st.just("overflow"), st.just(0)),
    st.tuples(st.just("forget"), st.integers(0, 5)),
    st.tuples(st.just("restart"), st.just(0)),
)


@given(st.integers(1, 3), st.lists(ACTIONS, max_size=40))
def test_every_event_comes_once_or_is_in_a_gap(modulus: int, actions: list[tuple[str, int]]) -> None:
    world = World(modulus)
    world.deliver(1)
    for action, number in actions:
        match action:
            case "happen":
                for _ in range(number):
                    world.happen()
            case "deliver":
                world.deliver(number)
            case "cut":
                world.connect()
            case "overflow":
                world.overflow()
            case "forget":
                world.oldest = max(world.oldest, world.seq + 1 - number)
            case _:
                world.restart()
    world.connect()
    world.settle()


@given(st.data())
def test_a_follower_of_everything_misses_nothing_that_a_lying_daemon_drops(data: st.DataObject) -> None:
    following = ResumeState(None, whole=True)
    following.connected()
    seen(following, welcome(0), status(0))
    kept = data.draw(st.lists(st.booleans(), min_size=1, max_size=30))
    items = seen(following, *(event(n) for n, keep in enumerate(kept, 1) if keep), status(len(kept)))
    covered: list[int] = []
    for item in items:
        covered += [item] if isinstance(item, int) else range(item[0], item[1] + 1)
    assert covered == list(range(1, len(kept) + 1))
