"""Why a leader of etcd was lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliosd.cluster.etcd.election import MemberAnswer
from heliosd.cluster.etcd.event_log import LogHead
from heliosd.cluster.etcd.loss_cause import loss_cause
from heliosd.cluster.etcd.pending_events import Observed, leader_events
from heliosd.protocol.events import StateChanged

LEADS = MemberAnswer("a", 5, 9.9, 10.0)
FOLLOWS = replace(LEADS, leader="b")
HEAD = LogHead(birth="x" * 12, cluster="c", seq=3, term=5, leader="a", turn=3)


@pytest.mark.parametrize(
    ("answer", "now", "cause"),
    [
        (replace(LEADS, unanswered=10.2), 10.4, "stopped"),
        (LEADS, 12.0, "stopped"),
        (FOLLOWS, 10.2, "transfer"),
        (replace(LEADS, leader=""), 10.2, "stepped_down"),
        (replace(FOLLOWS, asked=9.2), 10.2, "stepped_down"),
        (LEADS, 10.2, "unknown"),
        (None, 10.2, "unknown"),
    ],
)
def test_the_cause_is_what_the_last_answers_show(answer: MemberAnswer | None, now: float, cause: str) -> None:
    found, evidence = loss_cause("a", answer, now, removed=False)
    assert found == cause
    assert ("last_answer_ms" in evidence) == (answer is not None)


def test_a_leader_that_is_no_member_any_more_was_removed() -> None:
    assert loss_cause("a", LEADS, 10.2, removed=True) == ("removed", {})


def test_the_events_say_when_and_why_and_which_terms_passed_unseen() -> None:
    seen = Observed(
        names={"a": "one", "b": "two"}, lost_at=7.0, elected_at=8.0, cause="stopped", evidence={"x": 1.0}
    )
    lost, elected = (item.event for item in leader_events(HEAD, 9, "b", seen).items)
    assert isinstance(lost, StateChanged)
    assert (lost.cause, lost.evidence, lost.observed_at, lost.member_name) == (
        "stopped",
        {"x": 1.0},
        7.0,
        "one",
    )
    assert isinstance(elected, StateChanged)
    assert (elected.terms_unseen, elected.observed_at) == ((6, 8), 8.0)
    assert (elected.leader_name, elected.member_name) == ("two", "two")


def test_terms_that_follow_one_another_leave_none_unseen() -> None:
    (_, elected) = (item.event for item in leader_events(HEAD, 6, "b").items)
    assert isinstance(elected, StateChanged)
    assert elected.terms_unseen is None
