"""Nothing is asked of a member that was removed while it ends, and everything of one that comes to its URL."""

from __future__ import annotations

from collections.abc import Iterable

from heliosd.cluster.etcd.removed_members import STOPPING_SECONDS, RemovedMembers

from .test_etcd_view import THREE, A, member

URL = "http://etcd-1:2379"
TWO = tuple(each for each in THREE if each.id != A)


class Closed:
    """The endpoints that are closed now."""

    def __init__(self) -> None:
        self.urls: set[str] = set()
        self.removed = RemovedMembers(self.close)

    def close(self, urls: Iterable[str]) -> None:
        self.urls = set(urls)


def test_a_removed_member_is_left_alone_until_it_has_ended() -> None:
    closed = Closed()
    closed.removed.listed((), THREE, 0.0)
    assert closed.urls == set()
    closed.removed.listed(THREE, TWO, 1.0)
    assert closed.urls == {URL}
    closed.removed.listed(TWO, TWO, 0.9 + STOPPING_SECONDS)
    assert closed.urls == {URL}
    closed.removed.listed(TWO, TWO, 1.0 + STOPPING_SECONDS)
    assert closed.urls == set()


def test_so_is_every_other_url_at_which_it_answered() -> None:
    closed = Closed()
    closed.removed.listed(THREE, TWO, 1.0, ["http://proxy:2379/"])
    assert closed.urls == {URL, "http://proxy:2379"}


def test_another_member_at_its_url_is_asked_at_once() -> None:
    closed = Closed()
    closed.removed.listed(THREE, TWO, 1.0)
    again = (*TWO, member("c0ffee", "etcd-1"))
    closed.removed.listed(TWO, again, 2.0)
    assert closed.urls == set()


def test_what_is_about_to_be_removed_is_left_alone_as_long_as_it_is_said_so() -> None:
    closed = Closed()
    closed.removed.leaving([URL + "/"])
    closed.removed.listed(THREE, TWO, 1.0)
    closed.removed.leaving([])
    assert closed.urls == {URL}
    closed.removed.listed(TWO, TWO, 2.0 + STOPPING_SECONDS)
    assert closed.urls == set()


def test_a_cluster_that_takes_the_place_of_ours_is_asked_at_once() -> None:
    closed = Closed()
    closed.removed.listed(THREE, (), 1.0)
    assert closed.urls == set()
