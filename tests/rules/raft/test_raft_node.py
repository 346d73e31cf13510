"""One member, rule by rule: the extended paper's figures and sections, and the thesis where it says so."""

from __future__ import annotations

import pytest

from heliosd.raft.log import encode_membership
from heliosd.raft.membership import ChangeRefused
from heliosd.raft.messages import (
    AppendAnswer,
    AppendEntries,
    Entry,
    InstallAnswer,
    InstallSnapshot,
    PreVote,
    PreVoteAnswer,
    RequestVote,
    Snapshot,
    TimeoutNow,
    VoteAnswer,
)
from heliosd.raft.state import IllegalTransition
from heliosd.raft.storage import HardState, LogSuffix, SnapshotSaved
from tests.support.raft_nodes import ABC, TIMING, Stage, command

FOUR = {**ABC, "d": "d:1"}
FIVE = {**FOUR, "e": "e:1"}


# PreVote (thesis 9.6) and elections (paper 5.2, 5.4.1)


def test_a_member_without_a_leader_sends_prevotes_and_changes_nothing() -> None:
    stage = Stage()
    stage.timeout()
    assert TIMING.election <= stage.now <= 2 * TIMING.election
    assert stage.take() == [("b", PreVote(2, 1, 1, stage.now)), ("c", PreVote(2, 1, 1, stage.now))]
    assert (stage.raft.role, stage.raft.term, stage.unwritten) == ("Follower", 1, 0)


def test_a_member_cut_off_for_long_keeps_its_term() -> None:
    stage = Stage()
    stage.wait(100 * TIMING.election)
    assert stage.raft.term == 1


def test_a_candidate_requests_votes_only_once_its_own_is_on_disk() -> None:
    stage = Stage()
    stage.timeout()
    stage.take()
    output = stage.receive("b", PreVoteAnswer(2, True, stage.now))
    assert output.write is not None
    assert output.write.changes == (HardState("a", 2, "a"),)
    assert stage.take() == []
    stage.write()
    request = RequestVote(2, 1, 1, False, stage.now)
    assert stage.take() == [("b", request), ("c", request)]
    assert stage.raft.role == "Candidate"


def test_a_vote_without_the_own_one_on_disk_makes_no_leader() -> None:
    stage = Stage()
    stage.timeout()
    stage.receive("b", PreVoteAnswer(2, True, stage.now))
    stage.receive("b", VoteAnswer(2, True, stage.now))
    assert stage.raft.soft_state == ("Candidate", 2, "")
    stage.write()
    assert stage.raft.soft_state == ("Leader", 2, "a")


def test_a_vote_counts_once_however_often_it_comes() -> None:
    stage = Stage(members=FIVE)
    stage.timeout()
    for _ in range(3):
        stage.receive("b", PreVoteAnswer(2, True, stage.now))
    assert stage.raft.soft_state == ("Follower", 1, "")
    stage.receive("c", PreVoteAnswer(2, True, stage.now))
    stage.write()
    for _ in range(3):
        stage.receive("b", VoteAnswer(2, True, stage.now))
    assert stage.raft.role == "Candidate"


def test_a_vote_is_on_disk_before_it_is_sent() -> None:
    stage = Stage()
    stage.wait(TIMING.election)
    stage.take()
    stage.receive("b", RequestVote(2, 1, 1, False, 7))
    assert stage.take() == []
    stage.write()
    assert stage.take() == [("b", VoteAnswer(2, True, 7))]


def test_a_second_vote_in_one_term_is_refused_also_after_a_restart() -> None:
    stage = Stage(term=5, vote="b")
    stage.wait(TIMING.election)
    stage.take()
    stage.receive("c", RequestVote(5, 9, 9, False, 7))
    assert stage.take() == [("c", VoteAnswer(5, False, 7))]
    stage.receive("b", RequestVote(5, 9, 9, False, 8))
    assert stage.take() == [("b", VoteAnswer(5, True, 8))]


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"), [(3, 1, False), (2, 2, True), (9, 1, False), (1, 3, True)]
)
def test_only_a_log_as_up_to_date_gets_a_vote(last_index: int, last_term: int, granted: bool) -> None:
    stage = Stage(command(2, 2), term=2)
    stage.wait(TIMING.election)
    stage.take()
    stage.receive("b", RequestVote(5, last_index, last_term, False, 7))
    stage.write()
    assert stage.take() == [("b", VoteAnswer(5, granted, 7))]


def test_a_follower_of_a_live_leader_votes_for_no_other() -> None:
    """Thesis 4.2.3: a server that was removed, or is cut off, must not disturb."""
    stage = Stage()
    stage.append((1, 1), term=2)
    stage.write()
    stage.take()
    stage.wait(TIMING.election // 2)
    stage.receive("c", RequestVote(9, 9, 9, False, 7))
    stage.receive("c", PreVote(10, 9, 9, 8))
    assert stage.take() == [("c", VoteAnswer(2, False, 7)), ("c", PreVoteAnswer(2, False, 8))]
    assert (stage.raft.term, stage.raft.leader) == (2, "b")


def test_the_lease_holds_after_a_restart() -> None:
    stage = Stage()
    stage.receive("c", PreVote(2, 9, 9, 7))
    assert stage.take() == [("c", PreVoteAnswer(1, False, 7))]


def test_a_candidate_behind_learns_the_term_from_a_refusal() -> None:
    stage = Stage()
    stage.timeout()
    stage.receive("b", PreVoteAnswer(8, False, stage.now))
    assert (stage.raft.term, stage.raft.role) == (8, "Follower")


def test_a_candidate_follows_the_winner() -> None:
    stage = Stage()
    stage.campaign()
    stage.append((1, 1), term=2, leader="c")
    assert stage.raft.soft_state == ("Follower", 2, "c")


# Replication (paper 5.3)


def test_a_leader_begins_with_an_entry_of_its_own_and_writes_it_while_it_travels() -> None:
    stage = Stage()
    stage.campaign()
    stage.take()
    output = stage.receive("b", VoteAnswer(2, True, stage.now))
    assert output.write is not None
    assert isinstance(output.write.changes[0], LogSuffix)
    assert [entry.kind for entry in output.write.changes[0].entries] == ["noop"]
    assert [(to, type(message)) for to, message in stage.take()] == [
        ("b", AppendEntries),
        ("c", AppendEntries),
    ]


def test_an_entry_is_acknowledged_once_it_is_on_disk() -> None:
    stage = Stage()
    stage.append((1, 1), command(2, 2), term=2)
    assert stage.take() == []
    stage.write()
    assert stage.take() == [("b", AppendAnswer(2, True, 2, 1, 0, 0, 0))]


def test_a_heartbeat_is_acknowledged_only_up_to_what_is_on_disk() -> None:
    stage = Stage()
    stage.append((1, 1), command(2, 2), term=2)
    stage.append((2, 2), term=2)
    assert stage.take() == []


def test_a_leader_counts_itself_only_once_its_own_disk_has_it() -> None:
    stage = Stage()
    stage.lead()
    stage.propose(b"x")
    stage.accept("b", 3)
    assert stage.raft.commit == 2
    stage.write()
    assert stage.raft.commit == 3
    assert [entry.index for entry in stage.committed] == [2, 3]


def test_two_followers_commit_without_the_leaders_disk() -> None:
    """Thesis 10.2.1: the leader's own write need not be the first."""
    stage = Stage()
    stage.lead()
    stage.propose(b"x")
    stage.accept("b", 3)
    stage.accept("c", 3)
    assert stage.raft.commit == 3


def test_an_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    """Figure 8: it may be on a majority and be overwritten all the same."""
    stage = Stage(command(2, 2), term=2)
    stage.lead()
    stage.accept("b", 2)
    stage.accept("c", 2)
    assert stage.raft.commit == 1
    stage.accept("b", 3)
    assert [entry.index for entry in stage.committed] == [2, 3]


def test_followers_learn_of_a_commit_at_once() -> None:
    stage = Stage()
    stage.lead()
    stage.accept("b", 2)
    assert {(to, message.commit) for to, message in stage.take() if isinstance(message, AppendEntries)} == {
        ("b", 2),
        ("c", 2),
    }


def test_a_follower_commits_no_further_than_it_matches() -> None:
    """Figure 2: min(leaderCommit, index of last new entry), for what stands behind it may be wrong."""
    stage = Stage(command(2, 1), command(3, 1))
    stage.append((2, 1), term=2, commit=9)
    assert stage.raft.commit == 2


def test_a_conflicting_tail_is_replaced() -> None:
    stage = Stage(command(2, 1), command(3, 1), command(4, 1), term=1)
    output = stage.append((2, 1), command(3, 2, b"y"), term=2)
    assert output.write is not None
    assert output.write.changes == (HardState("a", 2, ""), LogSuffix("a", (command(3, 2, b"y"),)))
    assert stage.raft.log.last_index == 3


def test_a_late_append_truncates_nothing() -> None:
    stage = Stage(command(2, 2), command(3, 2), command(4, 2), term=2)
    output = stage.append((1, 1), command(2, 2), term=2)
    assert output.write is None
    assert stage.raft.log.last_index == 4


def test_a_committed_entry_is_never_replaced() -> None:
    stage = Stage(command(2, 1))
    stage.append((2, 1), term=2, commit=2)
    with pytest.raises(IllegalTransition, match="committed"):
        stage.append((1, 1), command(2, 2), term=2)


def test_two_leaders_in_one_term_are_a_bug() -> None:
    stage = Stage()
    stage.append((1, 1), term=2, leader="b")
    with pytest.raises(IllegalTransition, match="two leaders"):
        stage.append((1, 1), term=2, leader="c")


def test_a_former_leader_learns_the_term() -> None:
    stage = Stage(term=5)
    stage.append((1, 1), command(2, 2), term=2)
    assert stage.take() == [("b", AppendAnswer(5, False, 0, 1, 0, 0, 0))]
    assert stage.raft.log.last_index == 1


def test_a_follower_that_does_not_fit_says_where_its_term_begins() -> None:
    stage = Stage(command(2, 1), command(3, 4), command(4, 4), command(5, 4), term=4)
    stage.append((5, 6), term=6)
    stage.append((9, 6), term=6)
    stage.write()
    assert stage.take() == [
        ("b", AppendAnswer(6, False, 0, 5, 3, 4, 0)),
        ("b", AppendAnswer(6, False, 0, 9, 6, 0, 0)),
    ]


def test_a_leader_skips_a_whole_term_at_a_time() -> None:
    entries = [command(index, 2) for index in range(2, 40)]
    stage = Stage(*entries, term=2)
    stage.lead()
    stage.receive("b", AppendAnswer(3, False, 0, 39, 5, 1, stage.now))
    [(to, message)] = stage.take()
    assert isinstance(message, AppendEntries)
    assert (to, message.prev_index, len(message.entries)) == ("b", 1, 39)


def test_what_is_lost_on_the_way_is_sent_again_by_the_heartbeat() -> None:
    stage = Stage()
    stage.lead()
    stage.accept("b", 2)
    stage.propose(b"x")
    stage.write()
    stage.take()
    stage.wait(TIMING.heartbeat)
    heartbeat = next(message for to, message in stage.take() if to == "b")
    assert isinstance(heartbeat, AppendEntries)
    assert (heartbeat.prev_index, heartbeat.entries) == (3, ())
    stage.receive("b", AppendAnswer(2, False, 0, 3, 3, 0, stage.now))
    again = next(message for to, message in stage.take() if to == "b")
    assert isinstance(again, AppendEntries)
    assert [entry.index for entry in again.entries] == [3]


# CheckQuorum (thesis 6.2)


def test_a_leader_without_a_majority_steps_down_within_an_election_timeout() -> None:
    stage = Stage()
    stage.lead()
    stage.accept("b", 2)
    contact = stage.now
    stage.wait(TIMING.election - 1)
    assert stage.raft.role == "Leader"
    stage.wait(1)
    assert stage.raft.soft_state == ("Follower", 2, "")
    assert stage.now == contact + TIMING.election


def test_only_what_was_sent_lately_proves_contact() -> None:
    """An answer to an old message, late, must not prolong a leadership."""
    stage = Stage()
    stage.lead()
    sent = stage.now
    stage.wait(TIMING.election - 1)
    stage.receive("b", AppendAnswer(2, True, 2, 1, 0, 0, sent))
    stage.wait(1)
    assert stage.raft.role == "Follower"


def test_a_member_alone_stays_leader() -> None:
    stage = Stage(members={"a": "a:1"})
    stage.timeout()
    stage.write()
    stage.write()
    assert (stage.raft.role, stage.raft.commit) == ("Leader", 2)
    stage.wait(100 * TIMING.election)
    assert stage.raft.role == "Leader"


# Snapshots (paper 7)


def test_a_follower_too_far_behind_gets_the_snapshot_and_then_the_rest() -> None:
    stage = Stage()
    stage.lead()
    stage.accept("b", 2)
    snapshot, output = stage.raft.compact(stage.now, b"state")
    assert output.write is not None
    assert output.write.changes == (SnapshotSaved("a", snapshot, True),)
    stage.propose(b"x")
    stage.take()
    stage.receive("c", AppendAnswer(2, False, 0, 1, 1, 0, stage.now))
    assert stage.take() == [("c", InstallSnapshot(2, snapshot, stage.now))]
    stage.receive("c", InstallAnswer(2, 2, stage.now))
    [(_, message)] = stage.take()
    assert isinstance(message, AppendEntries)
    assert [entry.index for entry in message.entries] == [3]


def test_a_snapshot_replaces_a_log_that_does_not_reach_it_and_is_acknowledged_from_disk() -> None:
    stage = Stage(command(2, 1))
    snapshot = Snapshot(7, 3, FOUR, b"state")
    output = stage.receive("b", InstallSnapshot(4, snapshot, 0))
    assert output.installed == snapshot
    assert output.write is not None
    assert output.write.changes[-1] == SnapshotSaved("a", snapshot, keeps_log=False)
    assert (stage.raft.commit, stage.raft.log.last_index, stage.take()) == (7, 7, [])
    assert stage.raft.log.membership == FOUR
    stage.write()
    assert stage.take() == [("b", InstallAnswer(4, 7, 0))]


def test_a_snapshot_keeps_the_log_that_goes_on_from_it() -> None:
    stage = Stage(command(2, 1), command(3, 1))
    output = stage.receive("b", InstallSnapshot(2, Snapshot(2, 1, ABC, b"state"), 0))
    assert output.write is not None
    assert output.write.changes[-1] == SnapshotSaved("a", Snapshot(2, 1, ABC, b"state"), keeps_log=True)
    assert stage.raft.log.last_index == 3


def test_an_old_snapshot_never_moves_the_commit_back() -> None:
    stage = Stage(command(2, 1), command(3, 1))
    stage.append((3, 1), term=2, commit=3)
    output = stage.receive("b", InstallSnapshot(2, Snapshot(2, 1, ABC, b"old"), 0))
    assert output.installed is None
    assert stage.raft.commit == 3


def test_entries_that_a_snapshot_covers_fit() -> None:
    stage = Stage(snapshot=Snapshot(5, 2, ABC), term=2)
    stage.append((3, 1), command(4, 2), command(5, 2), command(6, 2), term=2, commit=6)
    assert (stage.raft.log.last_index, stage.raft.commit) == (6, 6)


# Changes of membership (thesis 4.1)


def test_no_change_before_the_term_has_committed_an_entry() -> None:
    """The bug of 2015: a change of the last leader may still come back."""
    stage = Stage()
    stage.lead()
    with pytest.raises(ChangeRefused, match="busy"):
        stage.change(FOUR)
    stage.accept("b", 2)
    stage.change(FOUR)


def test_one_change_at_a_time() -> None:
    stage = Stage()
    stage.lead()
    stage.accept("b", 2)
    stage.change(FOUR)
    with pytest.raises(ChangeRefused, match="busy"):
        stage.change(FIVE)
    stage.write()
    stage.accept("b", 3)
    assert stage.raft.commit == 2, "three of four are needed now"
    stage.accept("c", 3)
    stage.change(FIVE)


def test_two_members_at_once_are_a_mistake() -> None:
    stage = Stage()
    stage.lead()
    stage.accept("b", 2)
    with pytest.raises(ValueError, match="one member"):
        stage.change(FIVE)


def test_a_change_holds_when_it_is_appended_and_is_undone_when_it_is_truncated() -> None:
    stage = Stage()
    stage.append((1, 1), Entry(2, 2, "membership", encode_membership(FOUR)), term=2)
    assert stage.raft.log.membership == FOUR
    stage.append((1, 1), command(2, 3), term=3, leader="c")
    assert stage.raft.log.membership == ABC


def test_a_removed_leader_steps_down_once_that_is_committed_and_does_not_count_itself() -> None:
    """Thesis 4.2.2."""
    stage = Stage()
    stage.lead()
    stage.accept("b", 2)
    stage.change({"b": "b:1", "c": "c:1"})
    stage.write()
    stage.accept("b", 3)
    assert stage.raft.role == "Leader"
    stage.accept("c", 3)
    assert (stage.raft.role, stage.raft.commit) == ("Follower", 3)
    assert stage.raft.deadline is None, "it never campaigns again"


def test_a_member_whose_removal_is_not_committed_still_campaigns() -> None:
    """Thesis 4.2.2: it may be the only one that has the entry by which it goes."""
    stage = Stage(members={"a": "a:1", "b": "b:1"})
    stage.lead()
    stage.accept("b", 2)
    stage.change({"b": "b:1"})
    stage.write()
    stage.wait(3 * TIMING.election)
    assert stage.raft.role == "Follower"
    assert any(isinstance(message, PreVote) for _, message in stage.take())


def test_an_empty_member_waits_until_it_is_named() -> None:
    stage = Stage(snapshot=Snapshot(), term=0)
    assert stage.raft.deadline is None


# Leadership transfer (thesis 3.10)


def test_the_target_campaigns_once_its_log_is_complete() -> None:
    stage = Stage()
    stage.lead()
    stage.transfer("b")
    assert stage.take() == []
    with pytest.raises(ChangeRefused, match="transferring"):
        stage.propose(b"x")
    stage.accept("b", 2)
    assert ("b", TimeoutNow(2)) in stage.take()


def test_a_transfer_that_fails_is_abandoned() -> None:
    stage = Stage()
    stage.lead()
    stage.transfer("c")
    for _ in range(12):
        stage.wait(TIMING.heartbeat)
        stage.accept("b", 2)
    stage.propose(b"x")
    assert stage.raft.role == "Leader"


def test_the_target_of_a_transfer_campaigns_without_prevotes() -> None:
    stage = Stage()
    stage.append((1, 1), term=2)
    stage.write()
    stage.take()
    stage.receive("b", TimeoutNow(2))
    stage.write()
    assert stage.take()[0] == ("b", RequestVote(3, 1, 1, True, 0))


def test_a_leader_yields_to_the_campaign_that_it_requested() -> None:
    stage = Stage()
    stage.lead()
    stage.receive("b", RequestVote(3, 2, 2, True, 7))
    stage.write()
    assert stage.take()[-1] == ("b", VoteAnswer(3, True, 7))
    assert stage.raft.soft_state == ("Follower", 3, "")


# What a caller must not do


def test_proposals_are_for_the_leader() -> None:
    with pytest.raises(ChangeRefused, match="not_leader"):
        Stage().propose(b"x")


def test_time_and_writes_only_go_forward() -> None:
    stage = Stage()
    stage.wait(5)
    stage.raft.tick(5)
    with pytest.raises(IllegalTransition, match="time"):
        stage.raft.tick(4)
    with pytest.raises(IllegalTransition, match="never handed out"):
        stage.raft.persisted(5, 99)
