"""A member's status where etcd refuses it: made of a page that everybody is served, and believed as any other."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from heliosd.cluster.etcd.client.errors import (
    EtcdDenied,
    EtcdError,
    EtcdLoginRefused,
    EtcdNoLeader,
    EtcdUnavailable,
    missing_right,
)
from heliosd.cluster.etcd.client.responses import EtcdMember, NotEtcd, RaftVars, read_header, read_raft_vars
from heliosd.cluster.etcd.client.status_reader import AGAIN_SECONDS
from heliosd.cluster.etcd.members import KnownMember, completed
from heliosd.cluster.etcd.write_probe import lost_root
from tests.support.answering_member import (
    FULL,
    LIST,
    RANGE,
    STATUS,
    A,
    AnsweringMember,
    B,
    answer,
    page,
)

DENIED = EtcdDenied(A, "etcdserver: permission denied", 7)
GONE = EtcdLoginRefused(A, "etcdserver: authentication failed, invalid user ID or password", 3)


async def test_a_refused_status_is_made_of_the_raft_state_and_of_a_reads_header() -> None:
    member = AnsweringMember({STATUS: DENIED, RANGE: answer()}, {A: page()})
    status = await member.reader.read(A)
    assert (status.leader, status.raft_term, status.raft_index, status.raft_applied_index) == ("a", 2, 13, 12)
    header = status.header
    assert (header.cluster_id, header.member_id, header.revision) == ("ff", "a", 7)
    assert (status.version, status.db_size, status.errors, status.is_learner) == ("", 0, (), False)
    assert member.reader.refusals() == {A: DENIED}


async def test_a_learner_is_one_by_the_list_of_members() -> None:
    member = AnsweringMember({STATUS: DENIED, RANGE: answer()}, {A: page()})
    member.reader.learners = frozenset({"a"})
    assert (await member.reader.read(A)).is_learner


async def test_a_member_without_a_leader_shows_none() -> None:
    member = AnsweringMember(
        {STATUS: DENIED, RANGE: answer()}, {A: page(lead="0", raftState="StateCandidate")}
    )
    assert (await member.reader.read(A)).leader == ""


async def test_without_the_right_to_the_prefix_a_list_of_members_shows_the_cluster() -> None:
    member = AnsweringMember(
        {STATUS: DENIED, RANGE: answer(revision="9"), LIST: answer(revision="0")}, {A: page()}
    )
    await member.reader.read(A)
    member.answers[RANGE] = DENIED
    assert (await member.reader.read(A)).header.revision == 9, "the last revision shown"


@pytest.mark.parametrize("refusal", [DENIED, GONE])
async def test_without_any_right_a_member_is_believed_to_be_where_it_was(refusal: EtcdError) -> None:
    member = AnsweringMember({STATUS: FULL, RANGE: refusal, LIST: refusal}, {A: page(term=3, lead="b")})
    await member.reader.read(A)
    member.answers[STATUS] = refusal
    status = await member.reader.read(A)
    assert (status.leader, status.raft_term) == ("b", 3)
    assert (status.header.cluster_id, status.header.revision) == ("ff", 7)


@pytest.mark.parametrize("page_of", ["a", "c", ""])
async def test_a_member_whose_database_holds_up_its_status_shows_what_raft_says(
    autojump_clock: MockClock, page_of: str
) -> None:
    member = AnsweringMember({STATUS: FULL}, {A: page()})
    await member.reader.read(A)
    member.held_up, began = True, trio.current_time()
    member.pages = {A: page(id=page_of, term=3, lead="b", commit=20)} if page_of else {}
    if page_of == "a":
        status = await member.reader.read(A)
        assert (status.leader, status.raft_term, status.header.raft_term, status.raft_index) == (
            "b",
            3,
            3,
            20,
        )
        assert (status.version, status.header.revision, trio.current_time() - began < 0.9) == (
            "3.6.16",
            7,
            True,
        )
        assert status.held_up
        assert not member.reader.refusals()
    else:
        with pytest.raises(EtcdUnavailable, match="no answer"):
            await member.reader.read(A)


async def test_the_revision_of_a_status_that_was_held_up_is_not_taken_for_that_of_its_new_position(
    autojump_clock: MockClock,
) -> None:
    member = AnsweringMember({STATUS: FULL, RANGE: answer(revision="9")}, {A: page(applied=20)})
    await member.reader.read(A)
    member.held_up = True
    assert (await member.reader.read(A)).header.revision == 7
    member.held_up, member.answers[STATUS] = False, DENIED
    assert (await member.reader.read(A)).header.revision == 9


async def test_another_member_at_the_same_address_is_not_taken_for_it() -> None:
    member = AnsweringMember({STATUS: FULL, RANGE: GONE, LIST: GONE}, {A: page()})
    await member.reader.read(A)
    member.answers[STATUS] = GONE
    member.pages[A] = page(id="c")
    with pytest.raises(EtcdLoginRefused):
        await member.reader.read(A)
    member.answers[RANGE] = answer()  # of the member that was there before
    with pytest.raises(EtcdLoginRefused):
        await member.reader.read(A)


async def test_a_refused_status_is_asked_for_again_after_a_while_and_no_sooner(
    autojump_clock: trio.testing.MockClock,
) -> None:
    member = AnsweringMember({STATUS: DENIED, RANGE: answer()}, {A: page()})
    for _ in range(5):
        await member.reader.read(A)
    assert member.asked.count(STATUS) == 1
    member.answers[STATUS] = FULL
    await trio.sleep(AGAIN_SECONDS)
    assert (await member.reader.read(A)).version == "3.6.16"
    assert member.reader.refusals() == {}


async def test_a_header_is_asked_for_only_where_something_was_applied_since_the_last_one() -> None:
    member = AnsweringMember({STATUS: DENIED, RANGE: answer()}, {A: page()})
    for _ in range(3):
        assert (await member.reader.read(A)).header.revision == 7
    assert member.asked.count(RANGE) == 1
    member.pages[A] = page(applied=13)
    member.answers[RANGE] = answer(revision="8")
    assert (await member.reader.read(A)).header.revision == 8


async def test_of_several_refused_statuses_one_is_asked_for_again_and_the_others_once_it_is_given(
    autojump_clock: trio.testing.MockClock,
) -> None:
    member = AnsweringMember({STATUS: DENIED, RANGE: answer()}, {A: page(), B: page()})
    for endpoint in (A, B):
        await member.reader.read(endpoint)
    await trio.sleep(AGAIN_SECONDS)
    for endpoint in (A, B, A, B):
        await member.reader.read(endpoint)
    assert member.asked.count(STATUS) == 3
    await trio.sleep(AGAIN_SECONDS)
    member.answers[STATUS] = FULL
    assert [(await member.reader.read(endpoint)).version for endpoint in (A, B)] == ["3.6.16", "3.6.16"]


async def test_a_refused_status_is_asked_for_again_though_others_are_given_all_the_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    member = AnsweringMember({STATUS: DENIED, RANGE: answer(), B + STATUS: FULL}, {A: page()})
    await member.reader.read(A)
    member.answers[STATUS] = FULL
    for _ in range(5):
        await trio.sleep(AGAIN_SECONDS / 4)
        await member.reader.read(B)
        last = await member.reader.read(A)
    assert last.version == "3.6.16"
    assert member.reader.refusals() == {}


async def test_a_page_that_is_not_etcds_is_no_status() -> None:
    member = AnsweringMember({STATUS: DENIED, RANGE: answer()}, {A: b"{}"})
    with pytest.raises(EtcdUnavailable):
        await member.reader.read(A)


async def test_the_leader_of_the_highest_term_shows_who_is_a_member() -> None:
    follower = page(id="b", lead="a", progress={})
    member = AnsweringMember({}, {A: page(), B: follower})
    assert await member.reader.raft_members([A, B, "http://etcd-9:2379"]) == {"a": A, "b": B}
    member.pages[B] = page(id="b", lead="b", term=3, progress={"b": {}, "c": {}})
    assert await member.reader.raft_members([A, B]) == {"b": B, "c": ""}
    with pytest.raises(EtcdNoLeader):
        await member.reader.raft_members(["http://etcd-9:2379"])


def test_raft_vars_and_headers_are_read() -> None:
    assert read_raft_vars(page()) == RaftVars("a", 2, "a", 13, 12, ("a", "b"))
    assert read_header(answer()).cluster_id == "ff"
    with pytest.raises(NotEtcd):
        read_raft_vars(b'{"cmdline": []}')


def test_members_without_a_list_keep_what_was_known_of_them() -> None:
    listed = EtcdMember("a", "etcd-1", ("http://p",), (A,), False)
    recorded = KnownMember("b", "etcd-2", "etcd-2:2379", learner=True)
    found = completed({"c": "", "b": B, "a": "http://elsewhere"}, [listed], [recorded])
    assert found == (
        listed,
        EtcdMember("b", "etcd-2", (), (B,), True),
        EtcdMember("c", "", (), (), False),
    )


def test_what_is_denied_names_the_right_and_the_command_that_grants_it() -> None:
    root = "the user heliosd needs the role root: etcdctl user grant-role heliosd root"
    for path in (STATUS, LIST, "/maintenance/snapshot", "/cluster/member/add"):
        assert missing_right(path, "heliosd", "/heliosd/") == root
    for path in (RANGE, "/watch", "/kv/txn", "/lease/keepalive"):
        found = missing_right(path, "heliosd", "/ours/")
        assert "etcdctl role grant-permission ROLE --prefix=true readwrite /ours/" in found
    assert lost_root("heliosd").reason == root
