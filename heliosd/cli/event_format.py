"""Messages as lines of text: one for each event, and few for values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timezone
from typing import Any

from heliosd.client.resume import HOLE, Gap, Message

from .event_text import event_lines, metric_values, name_in_status
from .output import printable
from .report import BAD, FAINT, PLAIN, STRONG

METRICS_SHOWN = 5
"""Metrics named in one line."""

_EVENTS = {"state_change", "peer_change", "snapshot", "custom_metrics"}
_REASONS = {
    "slow_consumer": "this terminal was too slow",
    "epoch_changed": "the daemon began a new count",
    "too_old": "the daemon does not keep them any more",
    "too_many": "too many to fetch",
    "ahead": "the daemon's data was set back",
    HOLE: "the daemon did not say why",
}


class EventFormatter:
    """Turns messages into lines. Keeps the last status, so that a status is shown only if it changed.

    `asked`: the topics that the user named; all their values are shown, and no other ones. `date`: the format
    of the date and time of a line.
    """

    def __init__(
        self,
        asked: frozenset[str],
        *,
        colour: bool,
        zone: timezone | None = None,
        date: str = "%Y-%m-%d %H:%M:%S",
        milliseconds: bool = True,
        seq_width: int = 8,
    ) -> None:
        self._asked = asked
        self._colour = colour
        self._zone = zone
        self._date = date
        self._milliseconds = milliseconds
        self._seq_width = seq_width
        self._shown: tuple[object, ...] | None = None

    def lines(self, item: Message | Gap, now: str = "") -> Iterator[str]:
        """The lines of one item, without line ends. `now`: RFC 3339, the time of an item without one."""
        if isinstance(item, Gap):
            yield self._line(now, None, gap_text(item), BAD)
            return
        provisional = item.seq is None and item.type in _EVENTS and '"provisional":true' in item.raw
        if item.seq is not None or provisional:
            if item.type == "state_change":
                self._shown = None
            for text, style in event_lines(item.type, item.data):
                marked = f"{text} [provisional]" if provisional else text
                yield self._line(item.timestamp, item.seq, marked, style)
            return
        # A newer daemon may send other data.
        try:
            lines = list(self._values(item.type, item.data))
        except (KeyError, TypeError, AttributeError, ValueError):
            lines = []
        for text, style in lines:
            yield self._line(item.timestamp, None, text, style)

    def _values(self, name: str, data: Any) -> Iterator[tuple[str, str]]:
        match name:
            case "status" | "status_update":
                yield from self._status(data, always=name == "status" or "status" in self._asked)
            case "custom_metrics" if "custom_metrics" in self._asked:
                yield metric_values(data, METRICS_SHOWN), FAINT
            case "latency" if "latency" in self._asked:
                stats, health = data["aggregated"], data["health_summary"]
                yield (
                    f"latency {stats['avg_value_ms']:.1f} ms on average, {stats['p99_value_ms']:.1f} ms p99; "
                    f"{health['healthy']} of {health['total']} peers healthy",
                    FAINT,
                )
            case "uptime" if "uptime" in self._asked:
                yield f"up for {data['current_uptime']}, {data['total_uptime']} in all", FAINT
            case "error":
                yield f"error: {data['error']}", BAD

    def _status(self, data: Mapping[str, Any], *, always: bool) -> Iterator[tuple[str, str]]:
        shown = (data["state"], data["term"], data["leader"], data["stale"])
        # The status after a state_change repeats it.
        known = self._shown is None and not always
        changed = shown != self._shown
        self._shown = shown
        if always or (changed and not known):
            name = name_in_status(data, data["leader"])
            leader = f"{name} leads" if name else "no leader is known"
            health = data["cluster_health"]
            peers = f"{health['healthy_peers']} of {health['total_peers']} peers healthy"
            stale = ", and this may be out of date" if data["stale"] else ""
            node = name_in_status(data, data["node_id"])
            yield (
                f"{node} is {data['state']} in term {data['term']}, {leader}, {peers}{stale}",
                STRONG if data["leader"] else BAD,
            )

    def _line(self, timestamp: str, seq: int | None, text: str, style: str) -> str:
        at = self._clock(timestamp)
        number = "" if seq is None else str(seq)
        text = printable(text)
        if self._colour and style != PLAIN:
            text = f"\x1b[{style}m{text}\x1b[0m"
        return f"{at} {number:>{self._seq_width}}  {text}"

    def _clock(self, timestamp: str) -> str:
        try:
            moment = datetime.fromisoformat(timestamp).astimezone(self._zone)
        except ValueError:
            return " " * len(self._text(datetime(2000, 1, 1, tzinfo=UTC)))
        return self._text(moment)

    def _text(self, moment: datetime) -> str:
        finer = f".{moment.microsecond // 1000:03}" if self._milliseconds else ""
        return moment.strftime(self._date) + finer


def gap_text(gap: Gap) -> str:
    """The line of a gap: which events are missing, and why."""
    why = _REASONS.get(gap.reason, gap.reason)
    if gap.previous_epoch is not None:
        first = f"events from {gap.from_seq} on may be missing, and the first {gap.to_seq} of the new count"
        return f"GAP: {first}: {why}"
    if gap.to_seq < gap.from_seq:
        return f"GAP: the count went from {gap.from_seq - 1} back to {gap.to_seq}: {why}"
    which = (
        f"event {gap.from_seq} is"
        if gap.from_seq == gap.to_seq
        else f"events {gap.from_seq} to {gap.to_seq} are"
    )
    return f"GAP: {which} missing: {why}"
