"""What `heliosd watch` makes of messages: a line for what happened, and silence for what only passes by."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

from heliosd.cli.event_format import EventFormatter, gap_text
from heliosd.cli.main import main
from heliosd.cli.watch import json_line
from heliosd.client.client import Connected, Disconnected
from heliosd.client.resume import Gap, Message

AT = "2026-11-23T05:19:10.123456Z"
HEALTH = {"healthy_peers": 2, "total_peers": 2}


def item(name: str, data: Any = None, seq: int | None = None) -> Message:
    return Message(name, seq, AT, data, "")


def soft_state(name: str, **changed: object) -> Message:
    data = {"node_id": "node-1", "state": "Leader", "term": 2, "leader": "node-1", "stale": False}
    return item(name, {**data, "cluster_health": HEALTH, **changed})


def texts(*items: Message | Gap, asked: tuple[str, ...] = (), colour: bool = False) -> list[str]:
    formatter = EventFormatter(frozenset(asked), colour=colour, zone=UTC)
    return [line for each in items for line in formatter.lines(each, AT)]


def test_a_line_has_its_time_its_number_and_what_happened() -> None:
    change = {
        "old_state": "Follower",
        "new_state": "Leader",
        "term": 3,
        "leader": "node-1",
        "member": "node-1",
    }
    assert texts(item("state_change", change, 42)) == [
        "2026-11-23 05:19:10.123       42  node-1 leads in term 3; node-1: Follower → Leader"
    ]
    lost = {**change, "old_state": "Leader", "new_state": "Follower", "leader": ""}
    assert texts(item("state_change", lost, 43))[0].endswith("no leader in term 3; node-1: Leader → Follower")
    down = {**lost, "old_state": "Follower", "new_state": "Down", "cause": "unknown"}
    assert texts(item("state_change", down, 44))[0].endswith(
        "no leader is seen in term 3; node-1: Follower → Down"
    )


def test_values_that_say_nothing_new_are_quiet() -> None:
    passing = [
        item("latency", {}),
        item("uptime", {}),
        item("pong"),
        item("welcome", {}),
        item("authenticated", {}),
    ]
    assert texts(*passing) == []
    assert len(texts(soft_state("status"), soft_state("status_update"), soft_state("status_update"))) == 1


def test_a_status_that_differs_is_shown_unless_an_event_has_shown_it() -> None:
    stale = soft_state("status_update", stale=True)
    assert "out of date" in texts(soft_state("status"), stale)[1]
    change = item(
        "state_change",
        {"old_state": "Leader", "new_state": "Follower", "term": 3, "leader": "", "member": "node-1"},
        7,
    )
    after = soft_state("status_update", state="Follower", term=3, leader="")
    assert len(texts(soft_state("status"), change, after)) == 2


def test_values_that_were_asked_for_by_name_are_shown() -> None:
    latency = item(
        "latency",
        {
            "aggregated": {"avg_value_ms": 2.11, "p99_value_ms": 12.3},
            "health_summary": {"healthy": 1, "total": 2},
        },
    )
    assert texts(latency, asked=("latency",))[0].endswith(
        "latency 2.1 ms on average, 12.3 ms p99; 1 of 2 peers healthy"
    )
    assert len(texts(soft_state("status_update"), soft_state("status_update"), asked=("status",))) == 2


def test_values_of_metrics_are_shown_on_request_and_in_full() -> None:
    values = item("custom_metrics", {"bytes_total": {"value": 123456789012}, "load": {"value": 0.1}})
    assert texts(values) == []
    assert texts(values, asked=("custom_metrics",))[0].endswith("bytes_total = 123456789012, load = 0.1")


def test_what_the_log_does_not_have_yet_is_marked() -> None:
    change = {"old_state": "Leader", "new_state": "Unknown", "term": 3, "leader": "", "member": "ab"}
    change |= {"member_name": "m1", "cause": "stopped", "terms_unseen": [4, 5]}
    raw = '{"type":"state_change","provisional":true}'
    assert texts(Message("state_change", None, AT, change, raw))[0].endswith(
        "no leader in term 3 (it has stopped); m1: Leader → Unknown; terms 4 to 5 were not seen [provisional]"
    )


def test_metrics_are_named_and_many_are_counted() -> None:
    many = item("custom_metrics", {f"m{number}": {"value": number / 2} for number in range(8)})
    assert texts(many, asked=("custom_metrics",))[0].endswith(
        "m0 = 0, m1 = 0.5, m2 = 1, m3 = 1.5, m4 = 2 and 3 more"
    )
    defined = item("custom_metrics", {"a": {"type": "gauge"}, "b": None}, 5)
    assert [line[34:] for line in texts(defined)] == ["metric a registered (gauge)", "metric b deleted"]


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\r", "\u202eevil", "\u2028", "\x9b31m", "\x00"])
def test_text_from_elsewhere_cannot_move_the_cursor(name: str) -> None:
    peer = {"peer_id": name, "peer_address": name, "event_type": "added"}
    for line in texts(item("peer_change", peer, 1), item("error", {"error": name}), item(name, None, 2)):
        assert line.isprintable()


def test_colour_is_around_the_words_only() -> None:
    (line,) = texts(item("peer_change", {"peer_id": "a", "event_type": "removed"}, 1), colour=True)
    assert line == "2026-11-23 05:19:10.123        1  \x1b[31mpeer a removed\x1b[0m"


@pytest.mark.parametrize("data", [None, {}, [], "text", {"event_type": []}])
@pytest.mark.parametrize(
    "name", ["state_change", "peer_change", "snapshot", "custom_metrics", "from_the_future"]
)
def test_an_event_in_an_unknown_form_is_shown_by_its_name(name: str, data: object) -> None:
    lines = texts(item(name, data, 9))
    assert lines == ["2026-11-23 05:19:10.123        9  " + name] or (name, data) == ("custom_metrics", {})
    texts(item(name, data), item("status", data))


def test_a_gap_says_what_is_missing_and_why() -> None:
    assert (
        gap_text(Gap("A", 5, 9, "too_old"))
        == "GAP: events 5 to 9 are missing: the daemon does not keep them any more"
    )
    assert gap_text(Gap("A", 5, 5, "slow_consumer")) == "GAP: event 5 is missing: this terminal was too slow"
    assert "back to 3" in gap_text(Gap("A", 10, 3, "ahead"))
    assert "new count" in gap_text(Gap("B", 10, 3, "epoch_changed", previous_epoch="A"))
    assert texts(Gap("A", 5, 5, "new_reason"))[0].startswith("2026-11-23 05:19:10.123           GAP")


def test_json_lines_are_what_was_received_or_say_what_the_daemon_cannot() -> None:
    assert (
        json_line(Message("x", None, AT, None, '{"type": "x",\r\n "ü": 1}'), AT)
        == '{"type": "x",   "ü": 1}\n'
    )
    assert json_line(Gap("A", 1, 2, "slow_consumer", raw='{"type":"gap"}'), AT) == '{"type":"gap"}\n'
    assert json_line(Gap("B", 1, 2, "epoch_changed", previous_epoch="A"), AT) == (
        f'{{"type":"gap","timestamp":"{AT}","data":{{"from_seq":1,"to_seq":2,"reason":"epoch_changed",'
        '"epoch":"B","previous_epoch":"A"}}\n'
    )
    assert '"retry_in":1.235' in json_line(Disconnected("gone", 1001, 1.23456), AT)
    assert json_line(Connected("http://a"), AT).startswith('{"type":"connected"')


def test_a_cursor_that_begins_with_a_dash_is_read_as_a_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "--since", "-epoch"]) == 2
    assert capsys.readouterr().err == "heliosd: --since: not EPOCH:SEQ: '-epoch'\n"
