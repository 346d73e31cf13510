"""Why a leader of etcd was lost."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from heliosd.cluster.etcd.election import MemberAnswer
from heliosd.cluster.etcd.event_log import LogHead
from heliosd.cluster.etcd.loss_cause import Loss, loss_cause
from heliosd.cluster.etcd.member_traces import MemberTrace
from heliosd.cluster.etcd.pending_events import Observed, leader_events
from heliosd.protocol.events import Cause, StateChanged

LEADS = MemberAnswer("a", 5, 9.9, 10.0)
"""Asked for before the loss at 10.1; the others after it."""
FOLLOWS = MemberAnswer("b", 6, 10.19, 10.2)
ALONE = MemberAnswer("", 5, 10.19, 10.2)
CLAIMS = MemberAnswer("a", 5, 10.19, 10.2)
SILENT = replace(LEADS, unanswered=10.15)
HEAD = LogHead(birth="x" * 12, cluster="c", seq=3, term=5, leader="a", turn=3)


def late() -> MemberTrace:
    trace = MemberTrace()
    trace.answered(0.8, 0.0, 9.0, leads=True)
    return trace


def loss(
    answer: MemberAnswer | None,
    trace: MemberTrace | None = None,
    *,
    removed: bool | None = False,
    next_at: float | None = 10.15,
) -> Loss:
    return Loss(
        leader="a", at=10.1, answer=answer, trace=trace or MemberTrace(), removed=removed, next_at=next_at
    )


@pytest.mark.parametrize(
    ("seen", "cause", "certain"),
    [
        (loss(LEADS, removed=True), "removed", True),
        (loss(SILENT, removed=True), "removed", True),
        # Its process is gone, perhaps because it was removed.
        (loss(SILENT, MemberTrace(ended=10.05)), "stopped", True),
        (loss(SILENT, MemberTrace(ended=10.05), removed=None), "stopped", False),
        (loss(None, MemberTrace(ended=10.05)), "stopped", True),
        # It has been started again.
        (loss(FOLLOWS, MemberTrace(ended=10.05)), "stopped", True),
        (loss(ALONE, MemberTrace(ended=10.05)), "stopped", True),
        # It handed over before it ended.
        (loss(FOLLOWS, MemberTrace(ended=10.25)), "transfer", True),
        # Its process had ended before it was elected: it was another one.
        (replace(loss(FOLLOWS, MemberTrace(ended=8.0)), elected=9.0), "transfer", True),
        (replace(loss(CLAIMS, MemberTrace(ended=8.0)), elected=9.0, leads_again=True), "stepped_down", True),
        (replace(loss(FOLLOWS, MemberTrace(ended=10.05)), elected=9.0), "stopped", True),
        (loss(SILENT, MemberTrace(reach="refused")), "stopped", True),
        (loss(SILENT, MemberTrace(reach="accepted")), "stopped", True),
        (loss(SILENT, MemberTrace(reach="silent")), "unreachable", True),
        (loss(LEADS, MemberTrace(overdue=10.0, reach="silent")), "unreachable", True),
        (loss(SILENT), "stopped", False),
        (loss(FOLLOWS), "transfer", True),
        (loss(FOLLOWS, next_at=11.0), "stepped_down", True),
        (loss(replace(FOLLOWS, asked=9.8)), "stepped_down", True),
        (loss(FOLLOWS, late()), "stepped_down", True),
        # It lives; with another leader elsewhere, it is cut off from the others.
        (loss(ALONE, next_at=None), "stepped_down", False),
        (loss(ALONE), "unreachable", False),
        (loss(ALONE, late()), "stepped_down", False),
        (loss(CLAIMS), "unreachable", False),
        (loss(CLAIMS, next_at=None), "unknown", False),
        (loss(LEADS), "unknown", False),
        (loss(None), "unknown", False),
        # It leads again.
        (replace(loss(CLAIMS), leads_again=True), "stepped_down", True),
        (replace(loss(CLAIMS, MemberTrace(ended=10.05)), leads_again=True), "stopped", True),
    ],
)
def test_the_cause_is_what_was_seen_before_and_after(seen: Loss, cause: Cause, certain: bool) -> None:
    found = loss_cause(seen, 10.4)
    assert (found.cause, found.certain) == (cause, certain)
    assert ("last_answer_ms" in found.evidence) == (seen.answer is not None)


def test_a_leader_that_was_slow_before_it_fell_silent_was_too_slow() -> None:
    trace = late()
    trace.reach = "accepted"
    found = loss_cause(loss(SILENT, trace), 10.4)
    assert found.cause == "stepped_down"
    assert (found.evidence["late_answers"], found.evidence["latest_answer_ms"]) == (1, 800.0)


def test_late_answers_are_forgotten() -> None:
    trace = late()
    trace.reach = "accepted"
    assert loss_cause(loss(replace(SILENT, at=19.9, unanswered=19.95), trace), 20.1).cause == "stopped"


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
