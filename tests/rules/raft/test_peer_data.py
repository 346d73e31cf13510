"""The test data of etcd-io/raft against the model, fact by fact (`make prove-raft-peer`, docs/raft.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from heliosd.raft import quorum
from heliosd.raft.log import Members
from heliosd.raft.membership import ChangeRefused, differs_by_one, without_member
from tests.support.peer_transcripts import Differs, NotComparable, Step, Transcript, data, steps

pytestmark = pytest.mark.slow

NO_JOINT = "no joint consensus here"
APPLIED = "an entry is applied in the step that commits it here"
TRANSCRIPTS = {
    "async_storage_writes": (0, APPLIED),
    "async_storage_writes_append_aba_race": (1, APPLIED),
    "campaign": (4, ""),
    "campaign_learner_must_vote": (4, "a leader promotes a learner by itself here"),
    "checkquorum": (15, ""),
    "confchange_disable_validation": (4, NO_JOINT),
    "confchange_v1_add_single": (6, ""),
    "confchange_v1_remove_leader": (16, "commit of 1: 4 here, 6 there"),
    "confchange_v1_remove_leader_stepdown": (13, "raft-state, 1: ('Leader', 1) here, ('Follower', 1) there"),
    "confchange_v2_add_double_auto": (3, NO_JOINT),
    "confchange_v2_add_double_implicit": (3, NO_JOINT),
    "confchange_v2_add_single_auto": (6, ""),
    "confchange_v2_add_single_explicit": (3, NO_JOINT),
    "confchange_v2_replace_leader": (7, NO_JOINT),
    "confchange_v2_replace_leader_stepdown": (7, NO_JOINT),
    "forget_leader": (17, "raft-state, 1: ('Follower', 1) here, ('Leader', 1) there"),
    "forget_leader_prevote_checkquorum": (29, ""),
    "forget_leader_read_only_lease_based": (7, ""),
    "heartbeat_resp_recovers_from_probing": (11, ""),
    "lagging_commit": (17, ""),
    "prevote": (15, "vote of 1:  here, 2 there"),
    "prevote_checkquorum": (18, ""),
    "probe_and_replicate": (74, ""),
    "replicate_pause": (32, ""),
    "single_node": (4, ""),
    "slow_follower_after_compaction": (25, ""),
    "snapshot_succeed_via_app_resp": (18, ""),
    "snapshot_succeed_via_app_resp_behind": (11, "`send-snapshot` has no counterpart"),
}
"""Of each file: the steps that are the same, and what stands against the next one."""


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = data(tmp_path_factory.mktemp("peer"))
    if found is None:
        pytest.skip("no Go here to download etcd-io/raft with")
    return found


def majority(step: Step) -> str:
    voters = step.argument("cfg")
    if step.command.startswith("committed"):
        indexes = [0 if index == "_" else int(index) for index in step.argument("idx")]
        return str(quorum.reached_by_majority(indexes))
    votes = dict(zip(voters, step.argument("votes"), strict=True))
    granted = {voter for voter, vote in votes.items() if vote == "y"}
    pending = {voter for voter, vote in votes.items() if vote == "_"}
    if quorum.has_majority(granted, voters):
        return "VoteWon"
    return "VotePending" if quorum.has_majority(granted | pending, voters) else "VoteLost"


@pytest.mark.parametrize(("name", "same"), [("majority_commit", 15), ("majority_vote", 21)])
def test_majorities_are_those_of_the_peer_but_for_the_empty_one(peer: Path, name: str, same: int) -> None:
    """The peer's empty quorum agrees to everything, for joint consensus; ours agrees to nothing."""
    every = list(steps(peer / "quorum" / "testdata" / f"{name}.txt"))
    compared = [step for step in every if step.argument("cfg")]
    assert [majority(step) for step in compared] == [step.expected[-1] for step in compared]
    assert (len(every) - len(compared), len(compared)) == (1, same)


def changed(members: Members, changes: str) -> Members:
    """The membership after the peer's changes: v, l and r make a voter, a learner, or nothing of a member."""
    voters, learners = dict(members.voters), dict(members.learners)
    for change in changes.split():
        kind, name = change[0], change[1:]
        if kind in "vlr":
            voters.pop(name, None)
            learners.pop(name, None)
        if kind in "vl":
            (voters if kind == "v" else learners)[name] = name
    return Members(voters, learners)


def allowed(old: Members, new: Members) -> bool:
    """Whether our rules let a leader go from one membership to the other."""
    try:
        for name in old.voters.keys() - new.all.keys():
            without_member(old, name)
    except ChangeRefused:
        return False
    return bool(new.voters) and (new == old or differs_by_one(old, new))


@pytest.mark.parametrize(
    ("name", "narrower"),
    [
        ("simple_idempotency", []),
        ("simple_promote_demote", []),
        ("simple_safety", ["v2 l3", "l2 l3 l4 l5", "r2 r3 r4 r5"]),
    ],
)
def test_simple_changes_are_those_of_the_peer_one_member_at_a_time(
    peer: Path, name: str, narrower: list[str]
) -> None:
    """`narrower`: changes of several members, which the peer takes where one voter at most is among them."""
    members, refused_here = Members({}, {}), []
    for step in steps(peer / "confchange" / "testdata" / f"{name}.txt"):
        changes = " ".join(step.lines)
        new = changed(members, changes)
        found = re.match(r"voters=\(([\d ]*)\)(?: learners=\(([\d ]*)\))?", step.expected[0])
        if found is None:
            assert not allowed(members, new), changes
            continue
        voters, learners = (set((group or "").split()) for group in found.groups())
        assert (set(new.voters), set(new.learners)) == (voters, learners)
        if not allowed(members, new):
            refused_here.append(changes)
        members = new
    assert refused_here == narrower


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_transcript_of_the_peer_shows_the_same_facts_here(peer: Path, name: str) -> None:
    transcript, done, reason = Transcript(), 0, ""
    try:
        for step in steps(peer / "testdata" / f"{name}.txt"):
            transcript.run(step)
            done += 1
    except (Differs, NotComparable) as stopped:
        reason = str(stopped)
    expected, against = TRANSCRIPTS[name]
    assert done == expected
    assert reason.startswith(against) if against else not reason
    assert transcript.facts or against


def test_no_transcript_of_the_peer_is_left_out(peer: Path) -> None:
    assert {path.stem for path in (peer / "testdata").glob("*.txt")} == TRANSCRIPTS.keys()
