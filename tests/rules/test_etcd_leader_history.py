"""What a heliosd remembers of the leaders that it has seen lost and elected."""

from __future__ import annotations

from collections.abc import Sequence

from heliosd.cluster.etcd.election import HELD_SECONDS, LeaderElected, LeaderLost
from heliosd.cluster.etcd.leader_history import LeaderHistory

from .test_etcd_view import A, B, C, Seen, led_by_b

DAYS = 14 * 86_400.0


def test_a_transfer_is_not_taken_for_a_loss_of_the_same_leader_that_only_this_node_once_saw() -> None:
    seen = led_by_b()
    history = LeaderHistory(seen.view, lambda: seen.now)
    history.elected(B, 5, "")
    record(history, seen, B, 5, 3.0, who=())
    record(history, seen, B, 5, HELD_SECONDS + 1.0)
    assert history.observed(B, 5, 0).cause == "stepped_down", "it was lost, and leads again in its term"
    seen.mono += DAYS
    seen.view.skip(DAYS)
    record(history, seen, A, 6, 0.5)
    observed = history.observed(B, 5, 6)
    assert observed.cause == "transfer"
    assert observed.evidence is not None
    assert observed.evidence["without_leader_ms"] == 0.0
    assert observed.lost_at == observed.elected_at


def test_a_leader_that_hands_over_has_not_stopped_though_its_process_had_ended_before_it_was_elected() -> (
    None
):
    seen = led_by_b()
    history = LeaderHistory(seen.view, lambda: seen.now)
    history.elected(B, 5, "")
    seen.view.process_ended(A, seen.now)
    record(history, seen, B, 5, 0.5, who=(B, C))
    seen.view.restarted(A, seen.now)
    record(history, seen, A, 6, 0.25)
    record(history, seen, B, 7, 0.25)
    observed = history.observed(A, 6, 7)
    assert observed.cause == "transfer"
    assert observed.evidence is not None
    assert "process_ended_ms" not in observed.evidence


def test_a_leader_whose_process_has_ended_has_stopped_also_if_it_leads_again() -> None:
    seen = led_by_b()
    history = LeaderHistory(seen.view, lambda: seen.now)
    history.elected(B, 5, "")
    seen.mono += 1.0
    seen.view.process_ended(B, seen.now)
    record(history, seen, "", 5, 0.5, who=(A, C))
    seen.view.restarted(B, seen.now)
    record(history, seen, B, 6, 0.25)
    assert history.observed(B, 5, 6).cause == "stopped"


def record(
    history: LeaderHistory,
    seen: Seen,
    leader: str,
    term: int,
    seconds: float,
    who: Sequence[str] = (A, B, C),
) -> None:
    """The members say so for so long, those in `who`; the history hears of what changes."""
    for change in seen.poller(leader, seconds, term, who):
        match change:
            case LeaderLost(lost, lost_term):
                history.lost(lost, lost_term)
            case LeaderElected(elected, elected_term, before):
                history.elected(elected, elected_term, before)
            case _:
                pass
    history.refresh()
