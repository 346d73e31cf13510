"""`heliosd history`: the events that the daemon keeps, and who led when they begin."""

from __future__ import annotations

import argparse
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from typing import Any

from heliosd.client.rest_client import RestClient
from heliosd.client.resume import parse_cursor
from heliosd.config.values import InvalidValue, duration
from heliosd.protocol.filters import BadSubscription
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import Subscription

from .event_text import event_lines
from .exits import Usage
from .members_view import clock
from .options import add_output, add_target
from .report import Cell, Report, Table
from .requests import run_report

HISTORY = "/api/cluster/history"
PAGE = 1000
Since = Cursor | datetime


def add_options(parser: argparse.ArgumentParser) -> None:
    when = "03:00 (the last time it was so), 2026-11-28T03:00, 90m (ago)"
    parser.add_argument("--since", metavar="WHEN", help=f"{when}, or EPOCH:SEQ; default: the newest --limit")
    parser.add_argument("--until", metavar="WHEN", help="not later than this, as --since")
    parser.add_argument(
        "--types",
        metavar="TYPES",
        help="these alone, separated by commas: state_changes, peer_changes, snapshot, custom_metrics",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="COUNT",
        help="at most so many, the newest; default 100, with --since all",
    )
    add_output(parser, repeats=True)
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    if options.types is not None:
        try:
            Subscription.of_types(options.types)
        except BadSubscription as wrong:
            raise Usage(f"--types: {wrong}") from None
    if options.limit is not None and options.limit < 1:
        raise Usage("--limit: must be at least 1")
    return run_report(options, _ask)


async def _ask(rest: RestClient, options: argparse.Namespace) -> Report:
    now = datetime.now().astimezone()
    since = None if options.since is None else moment(options.since, now, "--since")
    until = None if options.until is None else moment(options.until, now, "--until")
    if isinstance(until, Cursor):
        raise Usage("--until: must be a time")
    heads, events = await _pages(rest, options.types, since if isinstance(since, Cursor) else None)
    before = None
    if isinstance(since, datetime):
        changes = events if options.types is None else (await _pages(rest, "state_changes", None))[1]
        before = leader_at(changes, since)
        events = [event for event in events if _at(event) >= since]
    if until is not None:
        events = [event for event in events if _at(event) <= until]
    limit = options.limit or (None if options.since else 100)
    if limit is not None:
        events = events[-limit:]
    return Report(
        {
            "epoch": heads["epoch"],
            "oldest_seq": heads["oldest_seq"],
            "seq": heads["seq"],
            "since": since.isoformat() if isinstance(since, datetime) else None,
            "leader_at_since": before,
            "events": events,
        },
        [events_table(events, now)],
        _led(since, before) if isinstance(since, datetime) else "",
    )


def events_table(events: list[dict[str, Any]], now: datetime) -> Table:
    """The events as rows. The title names the zone of the times, or if clocks were changed between them, each time
    its own."""
    zones = [_zone(event["timestamp"]) for event in events]
    changed = len(set(zones)) > 1
    rows = [
        [event["seq"], _time_cell(event["timestamp"], zone if changed else ""), words]
        for event, zone in zip(events, zones, strict=True)
        for words in _words(event)
    ]
    title = "Events" if changed else f"Events, times in {zones[0] if zones else now.tzname()}"
    return Table(["Seq", "Time", "Event"], rows, title)


def _zone(timestamp: str) -> str:
    """The name or the offset of this machine's zone at a time; "" for what is no time."""
    try:
        return datetime.fromisoformat(timestamp).astimezone().tzname() or ""
    except ValueError:
        return ""


def _time_cell(timestamp: str, zone: str) -> Cell:
    return Cell(timestamp, text=f"{clock(timestamp, date=True)} {zone}".rstrip())


async def _pages(
    rest: RestClient, types: str | None, since: Cursor | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The heads of the history, and all its events of these types, in order."""
    epoch, after = (None, None) if since is None else (since.epoch, since.after)
    events: list[dict[str, Any]] = []
    while True:
        page = await rest.get(HISTORY, epoch=epoch, after=after, limit=PAGE, types=types)
        events += page["events"]
        if not page["more"] or not page["events"]:
            return page, events
        epoch, after = page["epoch"], page["events"][-1]["seq"]


def moment(text: str, now: datetime, option: str) -> Since:
    """The time or the event that a text names; a time without a zone is in this machine's, with the offset that
    holds at that time. Raises `Usage`."""
    try:
        at = datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M")
    except ValueError:
        pass
    else:
        return _last_time(at.time(), now)
    try:
        if (given := _date_or_duration(text, now)) is not None:
            local = given.astimezone()
            return given if given.tzinfo else local
    except (ValueError, OverflowError):  # of the year 1 or 9999, or beyond, where clocks end
        raise Usage(f"{option}: too early or too late: {text!r}") from None
    try:
        return parse_cursor(text)
    except ValueError:
        raise Usage(f"{option}: not a time, a duration such as 90m, or EPOCH:SEQ: {text!r}") from None


def _date_or_duration(text: str, now: datetime) -> datetime | None:
    """The time that a date names, or that was so long ago; OverflowError if that is before the first year."""
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    with suppress(InvalidValue):
        return now - timedelta(seconds=duration(text))
    return None


def _last_time(clock_time: time, now: datetime) -> datetime:
    """When a local clock last showed this time. Its offset is not that of now if the clocks were changed since, and
    where they are set back it is shown twice in a day."""
    today = now.astimezone().date()
    shown = [
        datetime.combine(day, clock_time.replace(fold=fold)).astimezone()
        for day in (today, today - timedelta(days=1))
        for fold in (0, 1)
    ]
    return max(at for at in shown if at <= now)


def leader_at(events: list[dict[str, Any]], at: datetime) -> dict[str, Any] | None:
    """Who led at a time: the last state change before it; None if none that early is kept."""
    earlier = [event for event in events if event["type"] == "state_change" and _at(event) <= at]
    if not earlier:
        return None
    data = earlier[-1]["data"]
    led = {"leader": data["leader"], "term": data["term"], "seq": earlier[-1]["seq"]}
    # A leader may have led for longer than since the last change that names it.
    since = earlier[-1]
    for event in reversed(earlier):
        if (event["data"]["leader"], event["data"]["term"]) != (data["leader"], data["term"]):
            break
        since = event
    return led | {"name": data.get("leader_name") or data["leader"], "since": since["timestamp"]}


def _led(since: datetime, before: dict[str, Any] | None) -> str:
    at = since.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if before is None:
        return f"Who led at {at} is not known: nothing that old is kept."
    began = clock(before["since"], date=True)
    if not before["leader"]:
        return f"At {at} no leader was known, since {began}."
    return f"At {at} {before['name']} led, in term {before['term']}, since {began}."


def _at(event: dict[str, Any]) -> datetime:
    text = event["data"].get("observed_at") if event["type"] == "state_change" else None
    try:
        return datetime.fromisoformat(text or event["timestamp"])
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _words(event: dict[str, Any]) -> list[Cell]:
    """One event may be several changes, each in a row: a reset deletes all metrics."""
    return [
        Cell(text, style)
        for text, style in event_lines(event["type"], event["data"]) or [(event["type"], "")]
    ]
