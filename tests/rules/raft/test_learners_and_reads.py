"""Learners and their promotion (Raft thesis 4.2.1); reads without an entry in the log (thesis 6.4)."""

from __future__ import annotations

import pytest

from heliosd.cluster.simulated.status import role_of
from heliosd.raft.log import Members, decode_membership, encode_membership
from heliosd.raft.membership import ChangeRefused
from heliosd.raft.messages import AppendEntries, RequestVote, VoteAnswer
from heliosd.raft.simulation.observations import EntryApplied
from heliosd.raft.simulation.proposals import Accepted, AddMember, Declined, TransferLeadership, WriteCommands
from heliosd.raft.state import ConfirmedRead
from tests.support.checked_cluster import ELECTION, CheckedCluster, make_cluster
from tests.support.raft_nodes import ABC, Stage


def add(checked: CheckedCluster, name: str) -> str:
    leader = checked.run_until_led()
    checked.run(ELECTION)
    assert isinstance(checked.cluster.propose(leader, 1, AddMember(name, f"{name}:7000")), Accepted)
    checked.write()
    return leader


def test_a_membership_without_learners_is_stored_as_before() -> None:
    assert encode_membership(ABC) == b'{"a":"a:1","b":"b:1","c":"c:1"}'
    for members in (Members(ABC, {}), Members({"voters": "v:1"}, {}), Members(ABC, {"d": "d:1"})):
        assert decode_membership(encode_membership(members.voters, members.learners)) == members


def test_an_added_member_is_a_learner_first_and_then_a_voter() -> None:
    checked = CheckedCluster(make_cluster("abc"))
    add(checked, "d")
    assert role_of(checked.cluster, "d") in {"Unknown", "Follower", "Learner"}
    checked.run(5 * ELECTION)
    applied = [
        each.entry for each in checked.history if isinstance(each, EntryApplied) and each.member == "a"
    ]
    kept = [decode_membership(entry.data) for entry in applied if entry.kind == "membership"]
    assert [(set(each.voters), set(each.learners)) for each in kept] == [
        (set("abc"), {"d"}),
        (set("abcd"), set()),
    ]
    assert role_of(checked.cluster, "d") == "Follower"


def test_a_learner_that_cannot_catch_up_has_no_vote_and_does_not_hold_up_commits() -> None:
    checked = CheckedCluster(make_cluster("abc"))
    checked.run_until_led()
    checked.run(ELECTION)
    checked.cluster.net.partition([["d", "b"]])
    leader = add(checked, "d")
    assert leader in {"a", "c"}
    checked.cluster.propose(leader, 2, WriteCommands((b"w",)))
    checked.run(5 * ELECTION)
    raft = checked.cluster.members[leader].raft
    assert checked.commands(leader) == [b"w"]
    assert (set(raft.log.membership), set(raft.log.members.learners)) == (set("abc"), {"d"})
    assert checked.cluster.propose(leader, 3, TransferLeadership("d")) == Declined("busy")
    checked.cluster.net.partition([])
    checked.run(10 * ELECTION)
    raft = checked.cluster.members[checked.leader()].raft
    assert (set(raft.log.membership), set(raft.log.members.learners)) == (set("abcd"), set())


def test_a_learner_votes_when_it_is_asked_and_never_campaigns() -> None:
    """It may have been promoted without knowing (etcd-io/raft, testdata/campaign_learner_must_vote.txt)."""
    stage = Stage(members={"b": "b:1", "c": "c:1"})
    stage.wait(10_000)
    assert stage.take() == []
    stage.receive("b", RequestVote(2, 1, 1, False, stage.now))
    stage.write()
    assert [message for _, message in stage.take()] == [VoteAnswer(2, True, stage.now)]


def leading() -> Stage:
    stage = Stage()
    stage.lead()
    stage.accept("b", stage.raft.log.last_index)
    stage.take()
    return stage


def heartbeat_to(stage: Stage, member: str) -> AppendEntries:
    (message,) = [message for to, message in stage.take() if to == member]
    assert isinstance(message, AppendEntries)
    return message


def test_a_read_is_confirmed_by_a_heartbeat_that_was_sent_after_it() -> None:
    stage = leading()
    assert stage.raft.read(stage.now, 7).reads == ()
    assert stage.accept("b", 2).reads == ()  # it answers what was sent before the read
    stage.wait(1)
    assert heartbeat_to(stage, "b").sent == stage.now
    assert stage.accept("b", 2).reads == (ConfirmedRead(7, 2),)
    assert stage.accept("c", 2).reads == ()


def test_a_leader_alone_confirms_a_read_at_once() -> None:
    stage = Stage(members={"a": "a:1"})
    stage.timeout()
    stage.write()
    stage.write()
    assert stage.raft.read(stage.now, 1).reads == (ConfirmedRead(1, 2),)


def test_a_leader_reads_nothing_before_the_first_commit_of_its_term() -> None:
    stage = Stage()
    with pytest.raises(ChangeRefused, match="not_leader"):
        stage.raft.read(stage.now, 1)
    stage.lead()
    with pytest.raises(ChangeRefused, match="busy"):
        stage.raft.read(stage.now, 1)


def test_a_leader_that_steps_down_never_confirms_its_open_reads() -> None:
    stage = leading()
    stage.raft.read(stage.now, 1)
    stage.append((2, 2), term=3)
    assert stage.raft.role == "Follower"
    assert stage.accept("b", 2).reads == ()
