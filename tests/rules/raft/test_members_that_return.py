"""Members that are removed, added again and killed: no committed entry is lost, and a majority always elects."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest

from heliosd.cluster.simulated.status import why_not_ready
from heliosd.raft.log import encode_membership
from heliosd.raft.messages import AppendAnswer, AppendEntries, Entry, Snapshot
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.network import NetworkConditions
from heliosd.raft.simulation.observations import Answered, Unwritten
from heliosd.raft.simulation.proposals import (
    Accepted,
    AddMember,
    Declined,
    ForwardedProposal,
    Proposal,
    RemoveMember,
    TransferLeadership,
    WriteCommands,
    perform,
)
from heliosd.raft.storage import LogSuffix, MemberState
from tests.support.checked_cluster import ELECTION, MS, OPTIONS, CheckedCluster, Journal, make_cluster
from tests.support.raft_nodes import ABC, Stage, command

FIRST = Snapshot(1, 1, ABC)


def membership(index: int, term: int, names: str) -> Entry:
    return Entry(index, term, "membership", encode_membership({name: f"{name}:1" for name in names}))


def cluster_of(
    root: str, disks: Mapping[str, tuple[Entry, ...]], first: str = "abc", seed: int = 1
) -> CheckedCluster:
    """A cluster whose process was killed when its members had these entries on disk."""
    snapshot = Snapshot(1, 1, {name: f"{name}:1" for name in first})
    states = {
        name: MemberState(term=max([1, *(entry.term for entry in log)]), snapshot=snapshot, log=log)
        for name, log in disks.items()
    }
    cluster = SimulatedCluster(root=root, states=states, options=OPTIONS, rng=Random(seed), machine=Journal)
    return CheckedCluster(cluster)


def committed(checked: CheckedCluster) -> list[bytes]:
    """The commands on the root, once there is a leader and everything has settled."""
    checked.run_until_led()
    checked.run(10 * ELECTION)
    return checked.commands(checked.cluster.root)


def voters(checked: CheckedCluster) -> set[str]:
    return set(checked.cluster.members[checked.leader()].raft.log.membership)


def done(checked: CheckedCluster, proposal: Proposal) -> Accepted:
    """Propose it to the leader until it is accepted, and wait until it is committed."""
    for serial in range(100):
        leader = checked.run_until_led()
        result = checked.cluster.propose(leader, serial, proposal)
        checked.run(ELECTION)
        if isinstance(result, Accepted):
            return result
    raise AssertionError(f"{proposal} was never accepted")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("copied", [0, 5])
def test_a_removed_member_that_a_stale_configuration_names_does_not_come_back(copied: int, seed: int) -> None:
    """b and c were removed, and c was added again. Its disk has an old membership in force: a, b and c."""
    writes = tuple(command(index, 2, b"w%d" % index) for index in range(2, 7))
    log = (
        *writes,
        membership(7, 2, "ac"),
        membership(8, 2, "a"),
        command(9, 2, b"w9"),
        membership(10, 2, "ac"),
    )
    checked = cluster_of("a", {"a": log, "c": log[:copied]}, seed=seed)
    assert committed(checked) == [entry.data for entry in log if entry.kind == "command"]
    assert "b" not in checked.cluster.members


def test_an_added_member_starts_with_what_was_committed_before() -> None:
    checked = CheckedCluster(make_cluster("abc"))
    done(checked, WriteCommands((b"w1", b"w2")))
    done(checked, RemoveMember("c"))
    assert "c" not in checked.cluster.members
    done(checked, AddMember("c", "c:7000"))
    added = checked.cluster.members["c"].disk.read()
    terms = [entry.term for entry in added.log]
    assert added.term == max(terms)
    assert [entry.data for entry in added.log if entry.kind == "command"] == [b"w1", b"w2"]


@pytest.mark.parametrize("root", ["a", "c"])
def test_a_member_is_wiped_only_after_its_removal_is_committed(root: str) -> None:
    """d was added, and X committed on a, b and d of five. Its removal is on a and b only, and all were killed."""
    added = (membership(2, 2, "abcde"), command(3, 2, b"X"))
    removed = (*added, membership(4, 2, "abce"))
    checked = cluster_of(root, {"a": removed, "b": removed, "d": added, "c": (), "e": ()}, "abce")
    assert "d" in checked.cluster.members
    assert committed(checked) == [b"X"]
    assert checked.cluster.members.keys() == voters(checked)


@pytest.mark.parametrize(("names", "removed"), [("a", "d"), ("ab", "d"), ("abc", "d")])
def test_a_member_whose_removal_only_it_has_elects_after_a_restart(names: str, removed: str) -> None:
    """Thesis 4.2.2: it led, appended its own removal, and all were killed before anybody else had that."""
    added = membership(2, 2, names + removed)
    log = (added, command(3, 3, b"w"))
    disks = dict.fromkeys(names, log) | {removed: (*log, membership(4, 3, names))}
    checked = cluster_of("a", disks, names)
    assert committed(checked) == [b"w"]
    assert checked.cluster.members.keys() == voters(checked)


def test_an_addition_that_is_truncated_leaves_no_member_behind() -> None:
    checked = CheckedCluster(make_cluster("abc"))
    leader = checked.run_until_led()
    done(checked, WriteCommands((b"w",)))
    checked.cluster.net.partition([[leader]])
    assert isinstance(checked.cluster.propose(leader, 9, AddMember("d", "d:7000")), Accepted)
    checked.write()
    assert "d" in checked.cluster.members
    checked.run(10 * ELECTION)
    checked.cluster.net.partition([])
    done(checked, WriteCommands((b"x",)))
    checked.run(5 * ELECTION)
    assert sorted(checked.cluster.members) == ["a", "b", "c"]


def test_a_rejection_for_a_stale_term_sends_no_snapshot() -> None:
    stage = Stage(command(2, 1), command(3, 1), snapshot=FIRST)
    stage.lead("b")
    stage.accept("b", stage.raft.log.last_index)
    stage.take()
    # c rejected the former leader's message, in the term that this member leads by now.
    stage.receive("c", AppendAnswer(stage.raft.term, False, 0, 3, 0, 0, stage.now))
    assert [message for to, message in stage.take() if to == "c"] == []
    stage.receive("c", AppendAnswer(stage.raft.term, False, 0, 3, 2, 0, stage.now))
    (sent,) = [message for to, message in stage.take() if to == "c"]
    assert isinstance(sent, AppendEntries)
    assert sent.prev_index == 1


def test_the_only_member_cannot_be_removed() -> None:
    checked = CheckedCluster(make_cluster("a"))
    checked.run_until_led()
    checked.run(ELECTION)
    result, _ = perform(checked.cluster.members["a"].raft, checked.cluster.now, RemoveMember("a"))
    assert result == Declined("last_member")


@pytest.mark.parametrize("committed_before", [True, False])
def test_after_a_refused_write_only_a_lost_entry_is_declined(committed_before: bool) -> None:
    """A proposal is repeated, as its reply was lost. Then the disk refuses another entry of the leader."""
    checked = CheckedCluster(make_cluster("abc"))
    cluster = checked.cluster
    leader = checked.run_until_led()
    checked.run(ELECTION)
    other = next(each for each in "abc" if each != leader)
    proposal = cluster.propose(other, 1, WriteCommands((b"w",)))
    assert isinstance(proposal, ForwardedProposal)
    if committed_before:
        checked.run(ELECTION)
        cluster.forward(other, leader, proposal)
    cluster.propose(leader, 2, WriteCommands((b"another",)))
    cluster.net.conditions = NetworkConditions(latency=40 * MS)
    cluster.run_until(cluster.now + 15 * MS)  # the proposal arrives, its reply does not
    batch = cluster.take_writes()
    assert batch is not None
    checked.check()
    before = len(checked.history)
    cluster.refused(batch)
    checked.check()
    cluster.run_until(cluster.now + 2 * ELECTION)
    checked.check()
    results = [each.result for each in checked.history[before:] if isinstance(each, Answered)]
    assert len(results) == 1
    assert (results == [Declined("storage")]) == (not committed_before)


@pytest.mark.parametrize("fault", ["paused", "slow", "none"])
def test_an_entry_that_a_paused_or_slow_member_may_hold_is_not_declined(fault: str) -> None:
    """The disk refuses the entry of the leader. One that another member holds may still be committed."""
    checked = CheckedCluster(make_cluster("abc"))
    cluster = checked.cluster
    leader = checked.run_until_led()
    checked.run(ELECTION)
    asking, holding = (each for each in "abc" if each != leader)
    if fault == "paused":
        cluster.faults.pause(holding)
    elif fault == "slow":
        cluster.faults.disk_latency = {holding: 10 * ELECTION}
    assert isinstance(cluster.propose(asking, 1, WriteCommands((b"w",))), ForwardedProposal)
    cluster.run_until(cluster.now + 40 * MS)
    batch = cluster.take_writes()
    assert batch is not None
    checked.check()
    before = len(checked.history)
    cluster.refused(batch)
    checked.check()
    declined = [
        each for each in checked.history[before:] if isinstance(each, Unwritten) and each.member == leader
    ]
    assert [each.sent for each in declined] == [fault != "none"]


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_member_is_not_ready_until_it_has_applied_again_what_its_disk_refused(snapshot: bool) -> None:
    checked = CheckedCluster(make_cluster("abc"))
    cluster = checked.cluster
    done(checked, TransferLeadership("b"))
    done(checked, WriteCommands((b"w1",)))
    if snapshot:
        cluster.snapshot("a")
        checked.write()
    cluster.net.partition([["a"]])
    done(checked, WriteCommands((b"w2", b"w3")))
    cluster.net.partition([])
    while not checked.commands("a")[1:]:
        checked.event()
    batch = cluster.take_writes()
    assert batch is not None
    assert {change.member for change in batch.changes if isinstance(change, LogSuffix)} == {"a"}
    cluster.refused(batch)
    checked.check()
    waited = 0
    while why_not_ready(cluster, "a") is not None:
        machine = cluster.members["a"].visible_machine
        assert isinstance(machine, Journal)
        assert machine.commands == [b"w1", b"w2", b"w3"]
        checked.event()
        checked.write()
        waited += 1
    assert waited > 0
    assert checked.commands("a") == [b"w1", b"w2", b"w3"]
