"""Which cluster the endpoints of etcd belong to, and which one is ours."""

from __future__ import annotations

import random

from heliosd.cluster.etcd.client.endpoints import Endpoints
from heliosd.cluster.etcd.client.identity import TAKEOVER_SECONDS, ClusterIdentity

A, B, C = "http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"
OURS, OTHER = "cdf818194e3a8c32", "1"


def seen(own: str = OURS, **clusters: str) -> ClusterIdentity:
    """An identity with what each endpoint has shown at time 0."""
    identity = ClusterIdentity(own)
    for name, cluster in clusters.items():
        identity.seen({"a": A, "b": B, "c": C}[name], cluster, 0.0)
    return identity


def test_at_a_first_start_the_endpoints_that_answer_have_to_agree() -> None:
    assert seen("").choose() == "no endpoint has shown its cluster"
    agreed = seen("", a=OURS, c=OURS)
    assert (agreed.choose(), agreed.own) == ("", OURS)
    torn = seen("", a=OURS, c=OTHER)
    assert torn.choose() == f"the endpoints belong to different clusters: {A}: {OURS}, {C}: {OTHER}"
    assert torn.own == ""


def test_the_cluster_of_the_last_start_is_ours_whatever_answers() -> None:
    identity = seen(OURS, a=OTHER)
    assert (identity.choose(), identity.own) == ("", OURS)
    assert identity.foreign() == {A: OTHER}


def test_an_endpoint_counts_only_until_it_fails() -> None:
    identity = seen(a=OURS)
    assert identity.is_verified(A)
    assert not identity.is_verified(B)
    identity.lost(A)
    assert not identity.is_verified(A)


def test_a_foreign_endpoint_is_not_asked_until_it_shows_our_id() -> None:
    identity = seen(a=OURS, c=OTHER)
    endpoints = Endpoints([A, B, C], random.Random(1), identity)
    assert set(endpoints.order(0.0)) == {A, B}
    identity.seen(C, OURS, 1.0)
    assert set(endpoints.order(0.0)) == {A, B, C}


def test_a_foreign_endpoint_that_is_no_members_any_more_is_forgotten() -> None:
    identity = seen(a=OURS)
    endpoints = Endpoints([A], random.Random(1), identity)
    endpoints.learn([A, "http://10.0.0.3:2379"])
    identity.seen("http://10.0.0.3:2379", OTHER, 1.0)
    assert identity.foreign() == {"http://10.0.0.3:2379": OTHER}
    endpoints.learn([A])
    assert identity.foreign() == {}
    assert identity.is_verified(A)


def test_another_cluster_takes_over_only_when_every_endpoint_has_answered_for_it_for_a_while() -> None:
    identity = seen(a=OTHER, b=OTHER)
    assert identity.successor([A, B], TAKEOVER_SECONDS - 0.1) == ""
    assert identity.successor([A, B], TAKEOVER_SECONDS) == OTHER
    assert identity.successor([A, B, C], 99.0) == "", "the third may still be ours: it does not answer"
    identity.seen(C, OURS, 99.0)
    assert identity.successor([A, B, C], 199.0) == ""
    identity.seen(C, "2", 200.0)
    assert identity.successor([A, B, C], 299.0) == "", "they do not agree"


def test_a_cluster_that_is_ours_has_no_successor() -> None:
    assert seen(a=OURS).successor([A], 99.0) == ""
    assert seen("", a=OTHER).successor([A], 99.0) == "", "at a first start it is chosen, not taken over"


def test_an_endpoint_of_another_cluster_gets_no_login_and_an_unknown_one_gets_one_of_ours() -> None:
    identity = seen(OURS, b=OTHER)
    assert identity.logins(A, [A, B, C]) == (A,), "none of ours has answered yet"
    assert identity.logins(B, [A, B, C]) == ()
    identity.seen(C, OURS, 0.0)
    assert identity.logins(A, [A, B, C]) == (C, A)
    assert identity.logins(A, [A, B]) == (A,), "that of a removed member is of no use"
    identity.lost(B)
    assert identity.logins(B, [A, B, C]) == (C, B)
    identity.seen(A, OURS, 1.0)
    assert identity.logins(A, [A, B, C]) == (A,)


def test_at_the_first_start_a_login_is_made_where_it_is_needed() -> None:
    assert ClusterIdentity().logins(B, [A, B]) == (B,)
