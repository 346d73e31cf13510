"""The members of an etcd cluster as they are shown, and the events of a change."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.etcd.client.responses import EtcdMember
from heliosd.cluster.etcd.members import KnownMember, address_of, differences, find, known, peers_at
from heliosd.errors import Conflict, NotFound

IDS = ["1", "40a19193c2e8daeb", "5b43fdbbeab2ef97", "889e276ab796edad", "ffffffffffffffff"]
members = st.builds(
    KnownMember,
    id=st.sampled_from(IDS),
    name=st.sampled_from(["", "one", "two"]),
    address=st.sampled_from(["a:1", "b:1"]),
    learner=st.booleans(),
)
lists = st.lists(members, unique_by=lambda each: each.id).map(
    lambda each: tuple(sorted(each, key=lambda one: one.id))
)


def called(id_: str, name: str, *, learner: bool = False) -> EtcdMember:
    return EtcdMember(id_, name, (), (), learner)


def kinds(before: tuple[KnownMember, ...], after: tuple[KnownMember, ...]) -> list[tuple[str, str, str]]:
    return [(each.event_type, each.peer_id, each.peer_address) for each in differences(before, after)]


def test_a_member_is_shown_with_its_first_client_url() -> None:
    member = EtcdMember(
        "a1", "one", ("http://10.0.0.1:2380",), ("https://10.0.0.2:2379", "https://10.0.0.1:2379"), False
    )
    assert known([member]) == (KnownMember("a1", "one", "10.0.0.1:2379", learner=False),)


def test_a_member_that_has_not_started_yet_is_shown_with_its_peer_url() -> None:
    member = EtcdMember("a1", "", ("http://[::1]:2380",), (), True)
    assert known([member]) == (KnownMember("a1", "", "[::1]:2380", learner=True),)
    assert known([EtcdMember("a1", "", (), (), False)])[0].address == ""


def test_the_order_in_which_etcd_lists_its_members_says_nothing() -> None:
    listed = [EtcdMember(each, f"name-{each}", (f"http://{each}:1",), (), False) for each in IDS]
    shuffled = listed.copy()
    Random(1).shuffle(shuffled)
    assert known(shuffled) == known(listed)
    assert differences(known(listed), known(shuffled)) == ()


def test_members_come_go_are_promoted_and_renamed() -> None:
    before = (
        KnownMember("1", "one", "a:1", learner=False),
        KnownMember("2", "two", "a:2", learner=True),
        KnownMember("3", "", "a:3", learner=True),
    )
    after = (
        KnownMember("2", "two", "a:2", learner=False),
        KnownMember("3", "three", "b:3", learner=False),
        KnownMember("4", "", "a:4", learner=True),
    )
    assert kinds(before, after) == [
        ("removed", "1", "a:1"),
        ("added", "4", "a:4"),
        ("promoted", "2", "a:2"),
        ("promoted", "3", "b:3"),
        ("renamed", "3", "b:3"),
    ]


def test_a_new_address_alone_is_no_event() -> None:
    before = (KnownMember("1", "one", "a:1", learner=False),)
    assert kinds(before, (KnownMember("1", "one", "b:1", learner=False),)) == []


@given(lists, lists)
def test_who_hears_every_difference_knows_the_members(
    before: tuple[KnownMember, ...], after: tuple[KnownMember, ...]
) -> None:
    events = differences(before, after)
    ids = {each.id for each in before}
    learners = {each.id for each in before if each.learner}
    for event in events:
        match event.event_type:
            case "added":
                assert event.peer_id not in ids
                ids.add(event.peer_id)
            case "removed":
                ids.remove(event.peer_id)
            case "promoted":
                learners.remove(event.peer_id)
            case kind:
                assert kind == "renamed"
    assert ids == {each.id for each in after}
    assert {each.id for each in after if not each.learner} & {each.id for each in before} & learners == set()
    assert differences(after, after) == ()


def test_a_name_that_two_bear_names_neither_and_an_id_names_one() -> None:
    one, other = called("2", "m1"), called("10", "m1", learner=True)
    with pytest.raises(Conflict) as refused:
        find([one, other], "m1")
    assert (refused.value.message, refused.value.field) == ("2 members are called m1: 10, 2", "id")
    assert find([one, other], "10") is other
    with pytest.raises(NotFound):
        find([one, other], "m2")


def test_an_id_goes_before_a_name_that_is_written_alike() -> None:
    one, other = called("2", "10"), called("10", "m1")
    assert find([one, other], "10") is other


@pytest.mark.parametrize("url", ["http://[::1", "http://[10.0.0.1]:2379"])
def test_an_advertised_url_that_is_none_is_shown_as_it_stands_or_as_its_host(url: str) -> None:
    member = EtcdMember("1", "one", (url,), (url,), is_learner=False)
    assert address_of(member) in {url, "[10.0.0.1]:2379"}
    assert not peers_at(member, "10.0.0.1:2379")
