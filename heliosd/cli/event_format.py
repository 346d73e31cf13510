"""Messages as lines of text: one for each event, and few for values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from heliosd.client.resume import HOLE, Gap, Message

from .output import printable

PLAIN, STRONG, GOOD, BAD, FAINT = "", "1", "32", "31", "2"
METRICS_SHOWN = 5
"""Metrics named in one line."""

_PEER_STYLES = {"added": GOOD, "healthy": GOOD, "removed": BAD, "unhealthy": BAD}
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

    `asked`: the topics that the user named; all their values are shown.
    """

    def __init__(self, asked: frozenset[str], *, colour: bool, zone: timezone | None = None) -> None:
        self._asked = asked
        self._colour = colour
        self._zone = zone
        self._shown: tuple[object, ...] | None = None

    def lines(self, item: Message | Gap, now: str = "") -> Iterator[str]:
        """The lines of one item, without line ends. `now`: RFC 3339, the time of an item without one."""
        if isinstance(item, Gap):
            yield self._line(now, None, gap_text(item), BAD)
            return
        # A newer daemon may send other data; an event is then shown by its type.
        try:
            lines = list(self._described(item.type, item.seq is not None, item.data))
        except (KeyError, TypeError, AttributeError, ValueError):
            lines = [(item.type, PLAIN)] if item.seq is not None else []
        for text, style in lines:
            yield self._line(item.timestamp, item.seq, text, style)

    def _described(self, name: str, event: bool, data: Any) -> Iterator[tuple[str, str]]:
        match name:
            case "status" | "status_update":
                yield from self._status(data, always=name == "status" or "status" in self._asked)
            case "state_change":
                self._shown = None
                yield _state_change(data)
            case "peer_change":
                address = f" at {data['peer_address']}" if data.get("peer_address") else ""
                happened = data["event_type"]
                yield f"peer {data['peer_id']}{address} {happened}", _PEER_STYLES.get(happened, PLAIN)
            case "snapshot":
                yield _snapshot(data)
            case "custom_metrics" if event:
                for metric, view in data.items():
                    if view is None:
                        yield f"metric {metric} deleted", PLAIN
                    else:
                        yield f"metric {metric} registered ({view['type']})", PLAIN
            case "custom_metrics":
                yield _metrics(data), FAINT
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
            case _ if event:
                yield name, PLAIN

    def _status(self, data: Mapping[str, Any], *, always: bool) -> Iterator[tuple[str, str]]:
        shown = (data["state"], data["term"], data["leader"], data["stale"])
        # The status after a state_change repeats it.
        known = self._shown is None and not always
        changed = shown != self._shown
        self._shown = shown
        if always or (changed and not known):
            leader = f"{data['leader']} leads" if data["leader"] else "no leader is known"
            health = data["cluster_health"]
            peers = f"{health['healthy_peers']} of {health['total_peers']} peers healthy"
            stale = ", and this may be out of date" if data["stale"] else ""
            style = STRONG if data["leader"] else BAD
            yield (
                f"{data['node_id']} is {data['state']} in term {data['term']}, {leader}, {peers}{stale}",
                style,
            )

    def _line(self, timestamp: str, seq: int | None, text: str, style: str) -> str:
        at = self._clock(timestamp)
        number = "" if seq is None else str(seq)
        text = printable(text)
        if self._colour and style:
            text = f"\x1b[{style}m{text}\x1b[0m"
        return f"{at} {number:>8}  {text}"

    def _clock(self, timestamp: str) -> str:
        try:
            moment = datetime.fromisoformat(timestamp).astimezone(self._zone)
        except ValueError:
            return " " * 12
        return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03}"


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


def _state_change(data: Mapping[str, Any]) -> tuple[str, str]:
    leader = f"{data['leader']} leads" if data["leader"] else "no leader is known"
    who = data.get("member") or "this node"
    if data["old_state"] == data["new_state"]:
        return f"{leader} in term {data['term']} ({who} stays {data['new_state']})", GOOD if data[
            "leader"
        ] else BAD
    style = GOOD if data["leader"] else BAD
    return f"{who}: {data['old_state']} → {data['new_state']} in term {data['term']}, {leader}", style


def _snapshot(data: Mapping[str, Any]) -> tuple[str, str]:
    what = f"snapshot {data.get('snapshot_id') or data['index']} {data['type']}"
    if not data.get("success", True):
        return f"{what} failed: {data.get('error_message') or 'no reason given'}", BAD
    return f"{what}, {data['size_bytes']} bytes in {data['duration_ms']:g} ms", PLAIN


def _metrics(data: Mapping[str, Any]) -> str:
    shown = [f"{name} = {view['value']:g}" for name, view in list(data.items())[:METRICS_SHOWN] if view]
    more = len(data) - METRICS_SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
