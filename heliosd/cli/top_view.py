"""What `heliosd top` shows: members, and metrics with their rates. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timezone
from typing import Any

from msgspec import Struct

from .members_view import Cluster, clock_at
from .output import printable
from .report import BAD, FAINT, GOOD, Cell, Table, box, number_text
from .screen import spread

RATE_SECONDS = 10.0
"""A rate is over the newest readings of so long."""


class TopReading(Struct, frozen=True):
    """One reading of a daemon, at `at` (Unix seconds): its cluster, metrics by name, and clients."""

    at: float
    cluster: Cluster
    status: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]


class TopView:
    """Takes readings and failures; `lines` is the screen. `zone` None: this machine's."""

    def __init__(self, url: str, user: str, *, colour: bool, zone: timezone | None = None) -> None:
        self._url = url
        self._user = user
        self._colour = colour
        self._zone = zone
        self._readings: list[TopReading] = []
        self._failed: tuple[float, str] | None = None
        self._missed = ""

    def read(self, reading: TopReading) -> None:
        """The daemon has answered."""
        if self._failed is not None:
            away = reading.at - self._failed[0]
            self._missed = f"; no answer for {away:.0f} s until {self._clock(reading.at, '%H:%M:%S')}"
            if self._readings:
                before, now = self._readings[-1].cluster, reading.cluster
                if before.term != now.term:
                    self._missed += f", the term went from {before.term} to {now.term}"
        self._failed = None
        if self._readings and reading.at <= self._readings[-1].at:
            self._readings.clear()  # the clock was set back
        recent = [each for each in self._readings if reading.at - each.at <= RATE_SECONDS]
        # A rate needs two, however far apart they are.
        self._readings = [*(recent or self._readings[-1:]), reading]

    def failed(self, reason: str, now: float) -> None:
        """The daemon has not answered."""
        self._failed = (self._failed[0] if self._failed is not None else now, reason)

    def lines(self, width: int, height: int, now: float) -> list[str]:
        """The screen at a time."""
        lines = [
            spread(
                f"heliosd top  {self._url}  {self._user}", self._clock(now, "%Y-%m-%d %H:%M:%S %Z"), width
            ),
            *self._state(now),
        ]
        if not self._readings:
            return lines
        newest = self._readings[-1]
        members = newest.cluster.members_table()
        most = max(1, (height - len(lines)) // 2 - 4)
        shown = Table(members.columns, members.rows[:most], members.title, members.optional)
        lines += self._box(shown, width)
        room = height - len(lines) - 4
        names = sorted(newest.metrics, key=natural)
        if names and room > 0:
            title = f"Metrics: {len(names)}" + (f", {room} of them shown" if len(names) > room else "")
            rows = [self._row(name, newest) for name in names[:room]]
            lines += self._box(Table(["Metric", "Type", "Value", "Per s", "Labels"], rows, title), width)
        return lines

    def _row(self, name: str, newest: TopReading) -> list[object]:
        view = newest.metrics[name]
        labels = ",".join(f"{key}={value}" for key, value in view["labels"].items())
        rate = None if view["type"] == "gauge" else rate_of(name, self._readings)
        return [name, view["type"], Cell(view["value"], text=number_text(view["value"])), rate, labels]

    def _state(self, now: float) -> list[str]:
        if self._failed is not None:
            since, reason = self._failed
            known = "; what follows is the last known" if self._readings else ""
            text = f"no answer since {self._clock(since, '%H:%M:%S')}{known}: {printable(reason)}"
            return [self._styled(text, BAD), ""]
        if not self._readings:
            return ["connecting"]
        status, cluster = self._readings[-1].status, self._readings[-1].cluster
        problems = cluster.problems()
        indices, clients = status["indices"], status["sessions"]["active_count"]
        text = f"up {status['uptime']}; commit {indices['commit_index']}; {clients} clients{self._missed}"
        return [self._styled("; ".join(problems) or "healthy", BAD if problems else GOOD), text]

    def _box(self, table: Table, width: int) -> list[str]:
        lines = list(box(table, width, colour=self._colour and self._failed is None))
        return lines if self._failed is None else [self._styled(line, FAINT) for line in lines]

    def _clock(self, at: float, form: str) -> str:
        return clock_at(at, form, self._zone)

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colour and style else text


def rate_of(name: str, readings: list[TopReading]) -> float | None:
    """How much a counter, or the count of a histogram, grew a second; None before the second reading, and after it
    was registered anew."""
    known = [each for each in readings if name in each.metrics]
    if len(known) < 2:
        return None
    first, last = known[0], known[-1]
    if first.metrics[name]["created_at"] != last.metrics[name]["created_at"] or last.at <= first.at:
        return None
    return float(last.metrics[name]["value"] - first.metrics[name]["value"]) / (last.at - first.at)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key by which `a2` stands before `a10`."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.findall(r"[0-9]+|[^0-9]+", name)
    ]
