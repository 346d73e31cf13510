"""The small parts of the Raft simulation: majorities, logs, the network, the disk."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.raft import quorum
from heliosd.raft.log import RaftLog, encode_membership, is_up_to_date
from heliosd.raft.messages import Entry, Snapshot
from heliosd.raft.simulation.disk import Disk
from heliosd.raft.simulation.network import NetworkConditions, SimulatedNetwork
from heliosd.raft.simulation.write_batch import MemberWrite, gather
from heliosd.raft.state import NEVER, Write
from heliosd.raft.storage import HardState, LogSuffix, MemberState, SnapshotSaved

SIXES = st.integers(0, 6)


def make_log(*terms: int, snapshot: Snapshot | None = None) -> RaftLog:
    base = snapshot or Snapshot()
    entries = [Entry(index, term, "command") for index, term in enumerate(terms, base.index + 1)]
    return RaftLog(base, entries)


@given(st.lists(SIXES, max_size=7))
def test_what_a_majority_has_reached_is_what_counting_says(values: list[int]) -> None:
    reached = [
        value for value in range(7) if sum(held >= value for held in values) >= quorum.majority(len(values))
    ]
    assert quorum.reached_by_majority(values) == max(reached, default=0)


@given(st.sets(SIXES), st.sets(SIXES), st.sets(SIXES, min_size=1))
def test_two_majorities_share_a_voter(one: set[int], other: set[int], voters: set[int]) -> None:
    names = [str(voter) for voter in voters]
    ones, others = {str(each) for each in one}, {str(each) for each in other}
    if quorum.has_majority(ones, names) and quorum.has_majority(others, names):
        assert ones & others & set(names)


def test_without_voters_there_is_no_majority() -> None:
    assert not quorum.has_majority({"a"}, ())


@given(st.tuples(SIXES, SIXES), st.tuples(SIXES, SIXES))
def test_of_two_logs_one_is_as_up_to_date_as_the_other(one: tuple[int, int], other: tuple[int, int]) -> None:
    forth = is_up_to_date(one[0], one[1], than_term=other[0], than_index=other[1])
    back = is_up_to_date(other[0], other[1], than_term=one[0], than_index=one[1])
    assert forth or back
    assert (forth and back) == (one == other)


def test_a_log_knows_the_terms_from_its_snapshot_on() -> None:
    log = make_log(4, 4, 5, snapshot=Snapshot(3, 2, {}))
    assert (log.first_index, log.last_index, log.last_term) == (4, 6, 5)
    assert [log.term(index) for index in range(3, 7)] == [2, 4, 4, 5]
    for beyond in (2, 7):
        with pytest.raises(IndexError):
            log.term(beyond)
    assert log.holds(3, 2)
    assert not log.holds(7, 5)
    assert not log.holds(2, 2)
    with pytest.raises(IndexError):
        log.slice(3, 4)


def test_a_log_takes_no_entry_out_of_place() -> None:
    with pytest.raises(IndexError):
        make_log(1, 1).extend([Entry(4, 1, "command")])


@given(st.lists(SIXES, max_size=8), st.lists(SIXES, max_size=8))
def test_what_is_new_to_a_log_begins_at_the_first_conflict(mine: list[int], theirs: list[int]) -> None:
    mine, theirs = sorted(mine), sorted(theirs)
    entries = [Entry(index, term, "command") for index, term in enumerate(theirs, 1)]
    same = 0
    while same < min(len(mine), len(theirs)) and mine[same] == theirs[same]:
        same += 1
    assert list(make_log(*mine).missing(entries)) == entries[same:]


def test_truncating_brings_back_the_membership_before() -> None:
    log = make_log(1, snapshot=Snapshot(1, 1, {"a": "1"}))
    for index, members in [(3, {"a": "1", "b": "2"}), (4, {"b": "2"})]:
        log.extend([Entry(index, 1, "membership", encode_membership(members))])
    assert log.members_at(2).voters == {"a": "1"}
    assert log.members_at(3).voters == {"a": "1", "b": "2"}
    log.truncate(4)
    assert (log.membership, log.membership_index) == ({"a": "1", "b": "2"}, 3)
    log.truncate(2)
    assert (log.membership, log.membership_index) == ({"a": "1"}, 1)


def test_compacting_keeps_what_comes_after() -> None:
    log = make_log(1, 1, 2, snapshot=Snapshot(1, 1, {"a": "1"}))
    log.compact(Snapshot(3, 1, {"b": "2"}))
    assert (log.first_index, log.last_index, log.last_term, dict(log.membership)) == (4, 4, 2, {"b": "2"})
    with pytest.raises(IndexError):
        log.compact(Snapshot(9, 1))


def drain(net: SimulatedNetwork[int]) -> list[tuple[int, int]]:
    """(due, content) in the order of arrival."""
    arrived = []
    while (due := net.next_due()) != NEVER:
        packet = net.pop()
        if packet is not None:
            arrived.append((due, packet.content))
    return arrived


def test_the_mean_delay_is_as_configured_and_the_least_is_half_of_it() -> None:
    net: SimulatedNetwork[int] = SimulatedNetwork(NetworkConditions(latency=1000.0, ordered=False), Random(1))
    for number in range(5000):
        net.send(0, "a", "b", number)
    dues = [due for due, _ in drain(net)]
    assert min(dues) >= 500
    assert 950 < sum(dues) / len(dues) < 1050


def test_a_link_keeps_order_unless_the_conditions_say_otherwise() -> None:
    for ordered in (True, False):
        net: SimulatedNetwork[int] = SimulatedNetwork(
            NetworkConditions(latency=1000.0, ordered=ordered), Random(1)
        )
        for number in range(100):
            net.send(number, "a", "b", number)
        contents = [content for _, content in drain(net)]
        assert (contents == sorted(contents)) == ordered


def test_loss_and_repeats_have_their_share() -> None:
    net: SimulatedNetwork[int] = SimulatedNetwork(
        NetworkConditions(latency=1.0, loss=0.25, repeats=0.5), Random(1)
    )
    for number in range(2000):
        net.send(0, "a", "b", number)
    contents = [content for _, content in drain(net)]
    assert 1425 < len(set(contents)) < 1575
    assert 1.45 < len(contents) / len(set(contents)) < 1.55


def test_a_partition_drops_what_is_in_flight_and_members_in_no_group_stay_together() -> None:
    net: SimulatedNetwork[int] = SimulatedNetwork(NetworkConditions(latency=1.0), Random(1))
    net.send(0, "a", "b", 1)
    net.partition([["a"], ["b", "c"]])
    assert drain(net) == []
    links = {
        (one, other) for one in "abcde" for other in "abcde" if one < other and net.connected(one, other)
    }
    assert links == {("b", "c"), ("d", "e")}
    net.partition([])
    net.send(0, "a", "b", 2)
    assert [content for _, content in drain(net)] == [2]


def test_what_is_taken_back_never_arrives() -> None:
    net: SimulatedNetwork[int] = SimulatedNetwork(NetworkConditions(latency=1.0), Random(1))
    net.send(0, "a", "b", 1)
    mark = net.sent
    net.send(0, "a", "b", 2)
    net.send(0, "c", "b", 3)
    assert [packet.content for packet in net.take_back({"a"}, mark)] == [2]
    assert sorted(content for _, content in drain(net)) == [1, 3]


def test_a_disk_reads_back_what_was_written() -> None:
    disk = Disk(MemberState())
    entries = [Entry(index, 1, "command") for index in range(1, 6)]
    disk.write(HardState("a", 3, "b"))
    disk.write(LogSuffix("a", tuple(entries)))
    disk.write(LogSuffix("a", (Entry(4, 2, "command"),)))
    disk.write(SnapshotSaved("a", Snapshot(2, 1, {"a": "1"}), keeps_log=True))
    expected = (entries[2], Entry(4, 2, "command"))
    assert disk.read() == MemberState(term=3, vote="b", snapshot=Snapshot(2, 1, {"a": "1"}), log=expected)
    disk.write(SnapshotSaved("a", Snapshot(9, 2, {"a": "1"}), keeps_log=False))
    assert (disk.read().log, disk.last_index) == ((), 9)


def test_gathered_writes_are_one_suffix_a_member() -> None:
    def suffix(first: int, last: int, term: int = 1) -> LogSuffix:
        return LogSuffix("a", tuple(Entry(index, term, "command") for index in range(first, last + 1)))

    writes = gather(
        [
            ("a", 1, Write(1, (suffix(1, 3),))),
            ("b", 2, Write(9, (HardState("b", 1, ""),))),
            ("a", 1, Write(2, (suffix(3, 4, 2), suffix(5, 5, 2)))),
        ]
    )
    joined = LogSuffix("a", suffix(1, 2).entries + suffix(3, 5, 2).entries)
    assert writes == (
        MemberWrite("a", 1, 2, (joined,)),
        MemberWrite("b", 2, 9, (HardState("b", 1, ""),)),
    )
