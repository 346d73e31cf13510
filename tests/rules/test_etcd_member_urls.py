"""At which URL a member of etcd is polled, and which configured endpoints are asked who answers there."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

from heliosd.cluster.etcd.client.responses import EtcdMember
from heliosd.cluster.etcd.context import EtcdContext
from heliosd.cluster.etcd.member_urls import MemberUrls

LISTED, OTHER = "http://10.0.0.1:2379", "http://proxy:2379"


def member(name: str, *urls: str) -> EtcdMember:
    return EtcdMember(name, f"etcd-{name}", (), urls, is_learner=False)


@dataclass
class Cluster:
    """Both endpoints are configured; `members` is the newest list, at first not known."""

    members: tuple[EtcdMember, ...] = ()
    urls: MemberUrls = field(init=False)

    def __post_init__(self) -> None:
        endpoints = tuple(SimpleNamespace(url=url, configured=True) for url in (LISTED, OTHER))
        client = SimpleNamespace(endpoints=lambda: endpoints, urls=lambda: [LISTED, OTHER])
        self.urls = MemberUrls(cast(EtcdContext, SimpleNamespace(client=client, view=self)))


def test_before_the_members_are_known_every_endpoint_is_asked_until_it_answers() -> None:
    cluster = Cluster()
    assert cluster.urls.nameless() == [LISTED, OTHER]
    cluster.urls.answered(OTHER, "a")
    assert cluster.urls.nameless() == [LISTED]
    assert cluster.urls.of(member("a")) == OTHER


def test_a_member_is_polled_where_it_answered_once_its_listed_url_is_silent() -> None:
    cluster = Cluster((member("a", LISTED),))
    assert cluster.urls.nameless() == [OTHER]
    cluster.urls.answered(OTHER, "a")
    assert cluster.urls.of(cluster.members[0]) == LISTED
    cluster.urls.failed(LISTED, 1.0)
    assert cluster.urls.of(cluster.members[0]) == OTHER


def test_a_member_is_polled_at_its_next_url_once_its_first_is_silent() -> None:
    cluster = Cluster((member("a", LISTED, OTHER),))
    (first,) = cluster.members
    assert cluster.urls.of(first) == LISTED
    cluster.urls.failed(LISTED, 1.0)
    assert cluster.urls.of(first) == OTHER
    cluster.urls.failed(OTHER, 2.0)
    assert cluster.urls.of(first) == LISTED
    cluster.urls.answered(OTHER)
    assert cluster.urls.of(first) == OTHER


def test_the_endpoint_of_a_removed_member_is_asked_who_answers_there_now() -> None:
    cluster = Cluster((member("a", LISTED), member("b")))
    assert cluster.urls.nameless() == [OTHER]
    cluster.urls.answered(OTHER, "b")
    assert cluster.urls.nameless() == []
    cluster.members = cluster.members[:1]
    assert cluster.urls.nameless() == [OTHER]


def test_an_answer_that_comes_when_its_url_has_been_listed_does_not_hide_the_url_for_good() -> None:
    cluster = Cluster()
    assert cluster.urls.nameless() == [LISTED, OTHER]
    cluster.members = (member("a", LISTED), member("b", OTHER))
    assert cluster.urls.nameless() == []
    cluster.urls.answered(OTHER, "b")  # asked before the list was known
    cluster.members = cluster.members[:1]
    assert cluster.urls.nameless() == [OTHER]


def test_a_removed_member_that_answers_once_more_does_not_hide_its_endpoint() -> None:
    cluster = Cluster((member("a", LISTED),))
    assert cluster.urls.nameless() == [OTHER]
    cluster.urls.answered(OTHER, "removed")
    assert cluster.urls.nameless() == [OTHER]


def test_a_member_is_polled_at_its_listed_url_again_when_the_other_place_is_silent_too() -> None:
    cluster = Cluster((member("a", LISTED),))
    (a,) = cluster.members
    cluster.urls.nameless()
    cluster.urls.answered(OTHER, "a")
    cluster.urls.failed(LISTED, 1.0)
    cluster.urls.failed(OTHER, 2.0)
    assert cluster.urls.of(a) == LISTED
    cluster.urls.failed(LISTED, 3.0)
    assert cluster.urls.of(a) == OTHER
    cluster.urls.failed(OTHER, 4.0)
    cluster.urls.answered(LISTED)
    assert cluster.urls.of(a) == LISTED
