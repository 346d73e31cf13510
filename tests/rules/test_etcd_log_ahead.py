"""Whose leader a status shows: the log's, or the one that this node sees."""

from __future__ import annotations

from heliosd.cluster.etcd.event_log import LogHead
from heliosd.cluster.etcd.log_ahead import LOG_AHEAD_SECONDS, LogAhead


def head(term: int, leader: str) -> LogHead:
    return LogHead(birth="x", cluster="c", term=term, leader=leader)


def test_a_newer_leader_of_the_log_is_shown_until_this_node_sees_it_or_has_asked_for_long() -> None:
    ahead, newer = LogAhead(), head(6, "b")
    ahead.heard(newer, 10.0)
    assert ahead.shown(newer, 5, "a", 10.0) is newer
    assert ahead.shown(newer, 6, "b", 10.1) is None
    assert ahead.shown(newer, 5, "", 10.0 + LOG_AHEAD_SECONDS - 0.1) is newer
    assert ahead.shown(newer, 5, "", 10.0 + LOG_AHEAD_SECONDS) is None
    assert ahead.shown(None, 5, "", 10.0) is None


def test_events_that_change_no_leader_do_not_make_it_count_again() -> None:
    ahead, newer = LogAhead(), head(6, "b")
    for second in range(10):
        ahead.heard(newer, float(second))
    assert ahead.shown(newer, 5, "", LOG_AHEAD_SECONDS) is None
    ahead.heard(head(6, ""), 10.0)
    assert ahead.shown(head(6, ""), 6, "b", 10.0) is not None


def test_a_loss_that_only_this_node_has_seen_is_shown() -> None:
    ahead, old = LogAhead(), head(5, "a")
    ahead.heard(old, 0.0)
    assert ahead.shown(old, 5, "", 0.0) is None
