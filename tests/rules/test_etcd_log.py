"""The event log that several nodes write into one etcd: what is appended, refused, and decided again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from heliosd.cluster.etcd.client.responses import KeyValue, TxnResult
from heliosd.cluster.etcd.event_log import (
    AlreadyLogged,
    Append,
    Draft,
    HeadMoved,
    Logged,
    LogHead,
    LogItem,
    MembersRecord,
    SeenHead,
    SeenMembers,
    begin,
    compose,
    outcome,
    read_head,
    read_members,
)
from heliosd.cluster.etcd.keys import KeyLayout, KeyMeaning
from heliosd.cluster.etcd.members import KnownMember
from heliosd.cluster.etcd.pending_events import health_events, leader_events, membership_events
from heliosd.protocol.events import PeerChanged, StateChanged
from tests.support.etcd_model import CLUSTER, LAYOUT, Etcd
from tests.support.etcd_world import World

ANNA = KnownMember("a1", "anna", "a:1", learner=False)
BERT = KnownMember("b2", "bert", "b:1", learner=False)
CARL = KnownMember("c3", "carl", "c:1", learner=True)


def born(etcd: Etcd, *, members: tuple[KnownMember, ...] = (ANNA, BERT), birth: str = "0" * 12) -> SeenHead:
    write(etcd, begin(LAYOUT, head(etcd), cluster_id=etcd.cluster_id, birth=birth, members=members))
    return head(etcd)


def write(etcd: Etcd, draft: Draft) -> TxnResult:
    return etcd.txn(draft.compares, draft.then, draft.otherwise)


def head(etcd: Etcd) -> SeenHead:
    return read_head([kv for kv in [etcd.kvs.get(LAYOUT.head)] if kv])


def members(etcd: Etcd) -> SeenMembers:
    return read_members([kv for kv in [etcd.kvs.get(LAYOUT.members)] if kv])


def draft_of(append: Append, seen: SeenHead, max_events: int = 100) -> Draft:
    return compose(LAYOUT, append, seen, lease="7", now_wall=1_700_000_000.0, max_events=max_events)


def logged_events(etcd: Etcd) -> list[dict[str, Any]]:
    """The log's events, oldest first."""
    kvs = etcd.under(LAYOUT.folder("events"), LAYOUT.folder_end("events"))
    return [json.loads(kv.value) for kv in kvs]


def health(number: int) -> Append:
    change = PeerChanged(event_type="healthy", peer_id="a1", peer_address="a:1")
    return Append(items=(LogItem(f"health:{number}", change),))


# Keys


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        ("/heliosd/", b"/heliosd/head"),
        ("heliosd", b"/heliosd/head"),
        ("/a/b/", b"/a/b/head"),
        ("/", b"/head"),
    ],
)
def test_a_prefix_is_completed_by_its_slashes(prefix: str, key: bytes) -> None:
    layout = KeyLayout(prefix)
    assert layout.head == key
    assert layout.prefix <= key < layout.end
    assert not layout.prefix <= b"0" < layout.end


@given(name=st.text(min_size=1), seq=st.integers(1, 2**53 - 1))
def test_every_key_is_read_as_what_it_was_made_of(name: str, seq: int) -> None:
    made = {
        LAYOUT.dedupe(name): KeyMeaning("dedupe", name),
        LAYOUT.metric(name): KeyMeaning("metrics", name),
        LAYOUT.present(name): KeyMeaning("observers", name),
        LAYOUT.learner(name): KeyMeaning("learners", name),
        LAYOUT.revoked(name): KeyMeaning("revoked", name),
        LAYOUT.head: KeyMeaning("head"),
        LAYOUT.members: KeyMeaning("members"),
        LAYOUT.observer: KeyMeaning("observer"),
    }
    for key, place in made.items():
        assert LAYOUT.meaning(key) == place
        assert LAYOUT.prefix <= key < LAYOUT.end
    event = LAYOUT.meaning(LAYOUT.event(seq))
    assert event is not None
    assert LAYOUT.seq(event) == seq
    assert (LAYOUT.event(seq) < LAYOUT.event(seq + 1)) is True


def test_a_lone_surrogate_in_a_name_is_kept() -> None:
    assert LAYOUT.meaning(LAYOUT.revoked("a\ud800")) == KeyMeaning("revoked", "a\ud800")


@pytest.mark.parametrize(
    "key", [b"/other/head", b"/heliosd/heads", b"/heliosd/", b"/heliosd/told/", b"/heliosd/x/y"]
)
def test_a_strange_key_has_no_place(key: bytes) -> None:
    assert LAYOUT.meaning(key) is None


@pytest.mark.parametrize("name", ["1", "000000000000000G", "00000000000000AB", "+000000000000001", "x" * 16])
def test_what_is_not_sixteen_digits_is_no_number(name: str) -> None:
    assert LAYOUT.seq(KeyMeaning("events", name)) is None


# Appending


def test_an_append_takes_the_next_numbers() -> None:
    etcd = Etcd()
    seen = born(etcd)
    for number in range(3):
        draft = draft_of(health(number), seen)
        logged = outcome(draft, write(etcd, draft))
        assert logged == Logged(draft.events, etcd.revision)
        seen = head(etcd)
    assert [event["seq"] for event in logged_events(etcd)] == [1, 2, 3]
    assert seen.head is not None
    assert (seen.head.seq, seen.head.epoch) == (3, f"{CLUSTER}-{'0' * 12}")
    assert etcd.kvs[LAYOUT.event(2)].lease == etcd.kvs[LAYOUT.dedupe("health:1")].lease == "7"
    assert etcd.kvs[LAYOUT.head].lease == "0"


def test_of_two_that_want_the_same_event_logged_one_writes_it() -> None:
    etcd = Etcd()
    seen = born(etcd)
    mine, theirs = draft_of(health(1), seen), draft_of(health(1), seen)
    assert isinstance(outcome(mine, write(etcd, mine)), Logged)
    assert outcome(theirs, write(etcd, theirs)) == AlreadyLogged()
    assert len(logged_events(etcd)) == 1


def test_who_comes_second_decides_again_on_what_is_there() -> None:
    etcd = Etcd()
    seen = born(etcd)
    mine, theirs = draft_of(health(1), seen), draft_of(health(2), seen)
    write(etcd, mine)
    moved = outcome(theirs, write(etcd, theirs))
    assert moved == HeadMoved(head(etcd), members(etcd), frozenset(), etcd.revision)
    again = draft_of(health(2), moved.head)
    assert isinstance(outcome(again, write(etcd, again)), Logged)
    assert [event["seq"] for event in logged_events(etcd)] == [1, 2]


def test_what_is_logged_in_part_is_logged_without_that_part() -> None:
    etcd = Etcd()
    seen = born(etcd)
    write(etcd, draft_of(health(1), seen))
    both = Append(items=health(1).items + health(2).items)
    draft = draft_of(both, head(etcd))
    moved = outcome(draft, write(etcd, draft))
    assert isinstance(moved, HeadMoved)
    assert moved.logged == {"health:1"}
    assert both.without(moved.logged) == health(2)


def test_a_try_whose_answer_was_lost_is_not_doubled() -> None:
    etcd = Etcd()
    seen = born(etcd)
    write(etcd, draft_of(health(1), seen))
    again = draft_of(health(1), head(etcd))
    assert outcome(again, write(etcd, again)) == AlreadyLogged()


def test_a_try_that_arrives_after_its_repetition_does_nothing() -> None:
    etcd = Etcd()
    seen = born(etcd)
    late = draft_of(health(1), seen)
    write(etcd, draft_of(health(2), seen))
    write(etcd, draft_of(health(1), head(etcd)))
    assert not write(etcd, late).succeeded
    assert len(logged_events(etcd)) == 2


@given(st.integers(1, 5), st.lists(st.integers(1, 4), max_size=12))
def test_the_log_keeps_its_newest_events(max_events: int, sizes: list[int]) -> None:
    etcd = Etcd()
    seen = born(etcd)
    number = 0
    for size in sizes:
        items = tuple(health(number + each).items[0] for each in range(size))
        write(etcd, draft_of(Append(items=items), seen, max_events))
        number += size
        seen = head(etcd)
        # One transaction's own events always fit.
        assert [event["seq"] for event in logged_events(etcd)] == list(
            range(max(1, number + 1 - max(max_events, size)), number + 1)
        )


def test_too_many_events_for_a_transaction_are_refused() -> None:
    seen = born(Etcd())
    draft_of(Append(items=tuple(health(each).items[0] for each in range(48))), seen)
    with pytest.raises(ValueError, match="too many"):
        draft_of(Append(items=tuple(health(each).items[0] for each in range(60))), seen)


def test_nothing_is_appended_before_a_log_has_begun() -> None:
    with pytest.raises(ValueError, match="begin"):
        draft_of(health(1), SeenHead())


def test_a_leader_out_of_turn_is_refused() -> None:
    seen = SeenHead(LogHead(birth="x", cluster=CLUSTER, term=5, leader="a1"), 3)
    too_early = StateChanged(old_state="Follower", new_state="Leader", term=6, leader="b2", member="b2")
    unknown = StateChanged(old_state="Leader", new_state="Unknown", term=5, leader="", member="b2")
    for event in (too_early, unknown):
        with pytest.raises(ValueError, match="logged"):
            draft_of(Append(items=(LogItem("x", event),)), seen)


# Beginning


def test_a_log_begins_with_what_is_true_and_without_events() -> None:
    etcd = Etcd()
    draft = begin(
        LAYOUT, SeenHead(), cluster_id=CLUSTER, birth="0" * 12, members=(ANNA,), term=5, leader="a1"
    )
    assert outcome(draft, write(etcd, draft)) == Logged((), etcd.revision)
    assert head(etcd).head == LogHead(birth="0" * 12, cluster=CLUSTER, term=5, leader="a1")
    assert members(etcd).record == MembersRecord(members=(ANNA,))
    assert logged_events(etcd) == []


def test_of_two_that_begin_the_log_one_does() -> None:
    etcd = Etcd()
    first, second = (begin(LAYOUT, SeenHead(), cluster_id=CLUSTER, birth=each * 12) for each in "xy")
    write(etcd, first)
    moved = outcome(second, write(etcd, second))
    assert isinstance(moved, HeadMoved)
    assert moved.head.head is not None
    assert moved.head.head.birth == "x" * 12


def test_a_log_that_begins_anew_has_nothing_of_the_old_one() -> None:
    etcd = Etcd()
    write(etcd, draft_of(health(1), born(etcd)))
    etcd.put(LAYOUT.metric("hits"), b"{}")
    old = etcd.kvs[LAYOUT.head]
    seen = born(etcd, birth="1" * 12)
    assert logged_events(etcd) == []
    assert LAYOUT.metric("hits") in etcd.kvs
    # What was logged then may be logged again.
    draft = draft_of(health(1), seen)
    assert isinstance(outcome(draft, write(etcd, draft)), Logged)
    assert [event["seq"] for event in logged_events(etcd)] == [1]
    # Who still writes into the old one has lost.
    assert not write(etcd, draft_of(health(2), read_head([old]))).succeeded


def test_a_head_that_cannot_be_read_is_begun_over() -> None:
    etcd = Etcd()
    etcd.put(LAYOUT.head, b"not ours")
    assert head(etcd) == SeenHead(None, etcd.revision)
    assert born(etcd).head is not None


# What is to be logged


def leader_head(term: int = 5, leader: str = "a1", turn: int = 3) -> LogHead:
    return LogHead(birth="x", cluster=CLUSTER, seq=9, term=term, leader=leader, turn=turn)


def leaders(append: Append) -> list[tuple[str, str, int]]:
    """Old state, member and term of each."""
    changes = [item.event for item in append.items]
    return [(each.old_state, each.member, each.term) for each in changes if isinstance(each, StateChanged)]


def test_a_later_leader_is_logged_after_the_loss_of_the_one_before() -> None:
    append = leader_events(leader_head(), 7, "b2")
    assert leaders(append) == [("Leader", "a1", 5), ("Follower", "b2", 7)]
    assert [item.key for item in append.items] == ["lost:5:a1:3", "elected:7:b2:3"]


def test_a_leader_elected_again_in_a_later_term_was_lost_between() -> None:
    assert leaders(leader_events(leader_head(), 6, "a1")) == [("Leader", "a1", 5), ("Follower", "a1", 6)]


def test_a_leader_after_a_loss_is_logged_alone() -> None:
    assert leaders(leader_events(leader_head(leader=""), 6, "b2")) == [("Follower", "b2", 6)]


def test_a_leader_that_was_only_out_of_reach_is_logged_again_under_another_key() -> None:
    again = leader_events(leader_head(leader="", turn=4), 5, "a1")
    assert leaders(again) == [("Follower", "a1", 5)]
    assert again.items[0].key != leader_events(leader_head(term=4, leader=""), 5, "a1").items[0].key


@pytest.mark.parametrize(("term", "leader"), [(5, "a1"), (4, "a1"), (4, "b2"), (5, "b2"), (4, "")])
def test_what_the_log_knows_already_or_better_is_not_logged(term: int, leader: str) -> None:
    assert not leader_events(leader_head(), term, leader)


def test_a_leader_is_missed_once() -> None:
    assert leaders(leader_events(leader_head(), 5, "")) == [("Leader", "a1", 5)]
    assert not leader_events(leader_head(leader=""), 5, "")


def test_a_leader_elected_after_the_observation_is_not_logged_as_lost() -> None:
    """He missed the leader of term 5, and wrote it down too late."""
    assert not leader_events(leader_head(term=6, leader="b2"), 5, "")


def peers(append: Append | None) -> list[tuple[str, str]]:
    assert append is not None
    changes = [item.event for item in append.items]
    return [(each.event_type, each.peer_id) for each in changes if isinstance(each, PeerChanged)]


def test_members_that_come_and_go_are_logged() -> None:
    seen = SeenMembers(MembersRecord(members=(ANNA, BERT)), 8)
    append = membership_events(seen, (ANNA, CARL), 8)
    assert peers(append) == [("removed", "b2"), ("added", "c3")]
    assert append is not None
    assert [item.key for item in append.items] == ["member:removed:b2:8", "member:added:c3:8"]
    assert append.members is not None
    assert append.members.record == MembersRecord(members=(ANNA, CARL))


def test_a_learner_that_was_promoted_before_it_was_logged_is_added_first() -> None:
    etcd = Etcd()
    seen, promoted = born(etcd), structs.replace(CARL, learner=False)
    for kind in ("added", "promoted"):
        append = membership_events(members(etcd), (ANNA, BERT, promoted), etcd.revision, {CARL.id})
        assert append is not None
        assert peers(append) == [(kind, CARL.id)]
        write(etcd, draft_of(append, seen))
        seen = head(etcd)
    assert membership_events(members(etcd), (ANNA, BERT, promoted), etcd.revision, {CARL.id}) == Append()


def test_an_older_list_than_the_logged_one_logs_nothing() -> None:
    seen = SeenMembers(MembersRecord(members=(ANNA, BERT)), 8)
    assert membership_events(seen, (ANNA,), 7) is None


def test_a_list_without_changes_is_not_written() -> None:
    append = membership_events(SeenMembers(MembersRecord(members=(ANNA, BERT)), 8), (ANNA, BERT), 9)
    assert append == Append()
    assert not append


def test_a_new_address_is_written_without_an_event() -> None:
    moved = KnownMember("a1", "anna", "elsewhere:1", learner=False)
    append = membership_events(SeenMembers(MembersRecord(members=(ANNA,)), 8), (moved,), 9)
    assert peers(append) == []
    assert append


def test_a_missing_record_is_written_without_events() -> None:
    append = membership_events(SeenMembers(), (ANNA,), 9)
    assert peers(append) == []
    assert append


def test_two_changes_of_the_members_do_not_overwrite_each_other() -> None:
    etcd = Etcd()
    seen = born(etcd)
    stale = members(etcd)
    first, second = (membership_events(stale, (ANNA, BERT, each), etcd.revision) for each in (CARL, CARL))
    assert first is not None
    assert second is not None
    write(etcd, draft_of(first, seen))
    # The second one knows the new head, but not the new record.
    late = draft_of(Append(items=(), members=second.members), head(etcd))
    moved = outcome(late, write(etcd, late))
    assert isinstance(moved, HeadMoved)
    assert moved.members == members(etcd)
    assert membership_events(moved.members, (ANNA, BERT, CARL), etcd.revision) == Append()


def test_health_is_logged_when_it_changes() -> None:
    seen = SeenMembers(MembersRecord(members=(ANNA, BERT), unhealthy=("b2",)), 8)
    assert peers(health_events(seen, {"a1": False, "b2": True})) == [("unhealthy", "a1"), ("healthy", "b2")]
    assert not health_events(seen, {"a1": True, "b2": False, "unknown": False})
    assert not health_events(seen, {})
    assert not health_events(SeenMembers(), {"a1": False})


def test_a_removed_member_is_ill_no_longer() -> None:
    seen = SeenMembers(MembersRecord(members=(ANNA, BERT), unhealthy=("b2",)), 8)
    append = membership_events(seen, (ANNA,), 8)
    assert append is not None
    assert append.members is not None
    assert append.members.record.unhealthy == ()


def test_a_record_that_cannot_be_read_is_written_over() -> None:
    kv = KeyValue(key=LAYOUT.members, value=b"[1]", mod_revision=4)
    assert read_members([kv]) == SeenMembers(None, 4)


# All together


@pytest.mark.parametrize("seed", range(40))
def test_many_nodes_write_one_log_whatever_gets_lost(seed: int) -> None:
    world = World(seed, nodes=2 + seed % 3)
    world.run(1200)
    world.settle()
    world.verify()
    assert len(world.log) > 15


@pytest.mark.parametrize("seed", range(20))
def test_a_node_that_sleeps_while_the_log_is_trimmed_names_the_hole(seed: int) -> None:
    world = World(seed, max_events=4)
    for _ in range(6):
        # Nobody listens, and the watch cannot be taken up again.
        sleeper = world.nodes[0]
        world.nodes = world.nodes[1:]
        world.run(150)
        world.nodes = [sleeper, *world.nodes]
        world.etcd.compact()
        world.listen(sleeper, everything=True)
    world.settle()
    world.verify()
    assert world.nodes[0].client.holes


def test_a_seed_repeats_everything() -> None:
    logs = []
    for _ in range(2):
        world = World(7)
        world.run(500)
        logs.append(world.log)
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("term", "leader", "more"),
    [(5, "a1", False), (5, "", True), (4, "b1", True), (6, "b1", False), (6, "", False)],
)
def test_a_head_knows_more_than_a_node_that_has_not_seen_its_leader(
    term: int, leader: str, *, more: bool
) -> None:
    assert LogHead(birth="x", cluster=CLUSTER, term=5, leader="a1").knows_more(term, leader) is more


def test_a_head_whose_leader_is_lost_knows_more_than_a_node_that_still_sees_it() -> None:
    assert LogHead(birth="x", cluster=CLUSTER, term=5).knows_more(5, "a1")
    assert not LogHead(birth="x", cluster=CLUSTER, term=5).knows_more(5, "")


@pytest.mark.parametrize(
    ("logged", "term", "leader", "ahead"),
    [
        ("a1", 4, "b1", True),
        ("a1", 4, "", True),
        ("a1", 5, "a1", False),
        ("a1", 5, "", False),
        ("a1", 6, "b1", False),
        ("", 5, "a1", True),
        ("", 5, "", False),
        ("", 6, "a1", False),
    ],
)
def test_a_head_is_ahead_of_a_node_unless_that_has_seen_the_loss_of_its_leader(
    logged: str, term: int, leader: str, *, ahead: bool
) -> None:
    assert LogHead(birth="x", cluster=CLUSTER, term=5, leader=logged).ahead_of(term, leader) is ahead
