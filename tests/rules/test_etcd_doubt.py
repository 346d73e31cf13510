"""A leader in doubt, members that restart, and who is unhealthy while there is no leader."""

from __future__ import annotations

import pytest

from heliosd.cluster.etcd.election import HELD_SECONDS, LeaderElected, LeaderLost
from heliosd.cluster.etcd.member_traces import STARTING_SECONDS
from heliosd.cluster.etcd.pace import FAST_POLL_SECONDS, FAST_POLLS_LAST_SECONDS
from heliosd.cluster.etcd.view_changes import MemberRestarted
from heliosd.cluster.latency import HealthChanged

from .test_etcd_view import THREE, A, B, C, Seen, led_by_b, member


def settled() -> Seen:
    seen = led_by_b()
    seen.poller(B, 4.0)
    return seen


def pause(seen: Seen, member: str = A) -> float:
    return seen.view.poll_after(0.25, seen.now, member)


@pytest.mark.parametrize(
    "what", ["a failure", "silence", "its process ended", "a new term", "another opinion", "no leader"]
)
def test_members_that_answer_are_polled_fast_while_the_leader_is_in_doubt(what: str) -> None:
    seen = settled()
    assert pause(seen) == 1.0
    match what:
        case "a failure":
            seen.poll(B, who=(A, C))
        case "silence":
            seen.view.overdue(B, seen.mono - 0.3, seen.now)
        case "its process ended":
            seen.view.process_ended(B, seen.now)
        case "a new term":
            assert seen.view.term_seen(6, seen.now)
            assert not seen.view.term_seen(6, seen.now), "it is news once"
        case "another opinion":
            seen.view.answered(A, seen.status(A, C, 5), 0.002, seen.now)
        case _:
            seen.poll("")
    assert pause(seen) == FAST_POLL_SECONDS


def test_fast_polls_end_with_the_next_leader_and_in_any_case() -> None:
    seen = settled()
    seen.poll("")
    seen.poller(C, 0.75, 6)
    assert pause(seen) == 0.25
    seen.poll("", 6)
    seen.poller("", FAST_POLLS_LAST_SECONDS + 0.5, 6)
    assert pause(seen) == 0.25


def test_a_member_that_goes_on_alone_with_higher_terms_causes_no_fast_polls() -> None:
    """A follower that is cut off raises its term at each attempt to be elected."""
    seen = settled()
    seen.view.answered(A, seen.status(A, "", 6), 0.002, seen.now)
    seen.mono += FAST_POLLS_LAST_SECONDS + 1.0
    for term in range(7, 20):
        seen.mono += 1.0
        seen.view.answered(A, seen.status(A, "", term), 0.002, seen.now)
        assert pause(seen) != FAST_POLL_SECONDS


@pytest.mark.parametrize("what", ["late", "its connection was closed"])
def test_a_leader_in_doubt_that_answers_again_ends_the_fast_polls(what: str) -> None:
    seen = settled()
    if what == "late":
        seen.view.overdue(B, seen.mono - 0.3, seen.now)
    else:
        seen.view.process_ended(B, seen.now)
    seen.poll(B)
    seen.poll(B, seconds=0.5)
    assert pause(seen) == 0.25


def test_a_leader_that_restarts_and_leads_again_has_stopped_though_it_shows_its_old_term_at_first() -> None:
    seen = settled()
    seen.view.process_ended(B, seen.now)
    seen.view.restarted(B, seen.now)
    seen.poll(B, 5)
    assert seen.view.traces.of(B).ended is not None
    assert any(isinstance(change, LeaderElected) for change in seen.poll(B, 6))
    assert seen.view.traces.of(B).ended is not None
    seen.poll(B, 6)
    assert seen.view.traces.of(B).ended is None, "what ended belongs to the term before"


def test_a_leader_whose_restart_is_found_only_after_its_election_is_in_doubt_no_longer() -> None:
    seen = settled()
    seen.view.process_ended(B, seen.now)
    seen.poller(B, 1.5, 6)
    seen.view.restarted(B, seen.now)
    seen.poll(B, 6)
    assert not seen.view.traces.of(B).in_doubt
    assert not seen.view.traces.of(B).is_silent(seen.view.last_answer(B))


def test_a_poll_that_fails_after_its_member_was_removed_is_no_failure() -> None:
    seen = settled()
    seen.listing(THREE[1:])
    seen.view.failed(C, "refused", seen.now)
    assert seen.view.failures() == {}


def test_a_member_that_answers_after_its_restart_is_asked_again() -> None:
    seen = settled()
    seen.view.process_ended(A, seen.now)
    assert seen.view.traces.of(A).is_silent(seen.view.last_answer(A))
    seen.view.restarted(A, seen.now)
    seen.poll(B)
    assert not seen.view.traces.of(A).is_silent(seen.view.last_answer(A))


def test_no_doubt_of_a_leader_lasts_while_it_answers_as_leader() -> None:
    """This process was paused: it sees the election before the end of the connection."""
    seen = settled()
    seen.poller(B, 0.5, 6)
    seen.mono += 0.1
    seen.view.process_ended(B, seen.now)
    seen.view.restarted(B, seen.now)
    seen.poller(B, HELD_SECONDS + 0.5, 6)
    assert not seen.view.traces.of(B).in_doubt
    seen.poller(B, 1.0, 6)
    assert pause(seen) == 0.25


def test_a_new_member_that_does_not_answer_yet_is_not_unhealthy_for_its_first_seconds() -> None:
    seen = settled()
    new = member("c0ffee", "etcd-4")
    seen.listing((*THREE, new))
    changes = seen.poller(B, 1.5)
    assert new in seen.view.members
    assert [each for each in changes if isinstance(each, HealthChanged)] == []
    assert HealthChanged(new.id, healthy=False) in seen.poller(B, STARTING_SECONDS)


def test_a_restart_that_no_poll_has_shown_is_a_turn() -> None:
    seen = settled()
    seen.view.restarted(A, seen.now)
    assert MemberRestarted(A) in seen.poll(B)
    # This one was seen to be unhealthy for a while.
    seen.poller(B, 1.0, who=(B, C))
    seen.view.restarted(A, seen.now)
    assert MemberRestarted(A) not in seen.poll(B)
    # An outage that was over before the process ended says nothing of the restart.
    seen.poller(B, 1.0, who=(B, C))
    seen.poll(B)
    seen.view.traces.of(A).connection_ended(seen.mono)
    seen.view.restarted(A, seen.now)
    assert MemberRestarted(A) in seen.poll(B)


def test_without_a_leader_the_members_that_fail_are_unhealthy_if_another_one_still_lists_them() -> None:
    seen = settled()
    changes = [change for _ in range(14) for change in seen.poll(B, who=(A,))]
    assert LeaderLost(B, 5) in changes
    assert seen.view.judged(seen.now) == {A: True}, "perhaps they were removed"
    seen.listing(THREE, by=A)
    assert seen.view.judged(seen.now) == {A: True, B: False, C: False}


def test_where_no_member_answers_all_are_unhealthy() -> None:
    seen = settled()
    for _ in range(14):
        seen.poll(B, who=())
    assert seen.view.leader == ""
    assert seen.view.judged(seen.now) == {A: False, B: False, C: False}


def test_a_member_that_newer_lists_do_not_have_was_removed() -> None:
    seen = settled()
    assert seen.view.removed(B) is None
    seen.poll(B, who=(A, C))
    seen.listing((THREE[0], THREE[1]), by=A)
    assert seen.view.removed(B)
    seen.listing(THREE, by=C)
    assert seen.view.removed(B) is False
