"""Moments and durations: how time is handed to the rules, and how it is written.

Rules never read a clock. They are given an `Instant`: wall time to show, monotonic time to measure with. So a jump
of the wall clock neither ends a session nor makes an uptime negative.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple


class Instant(NamedTuple):
    """One moment on both clocks."""

    wall: float
    """Unix time in seconds. May jump in either direction between two instants."""
    mono: float
    """Seconds from an arbitrary start in this process. Never goes back."""


def next_beat(now: float, seconds: float) -> float:
    """The next time after `now` that is a multiple of `seconds`. Tasks that look at something now and then, and
    wait for such times, wake together, which costs an idle daemon one waking in place of several."""
    return (now // seconds + 1) * seconds


def rfc3339(wall: float) -> str:
    """Unix seconds as RFC 3339 in UTC with microseconds, e.g. `2026-11-23T05:19:10.000000Z`."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def duration_text(seconds: float) -> str:
    """Whole seconds as `2h15m30s`, `5m3s` or `0s`: Go's form, which Helios' clients parse.

    Fractions are cut; a negative duration is `0s`.
    """
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{secs}s"
    if minutes:
        return f"{minutes}m{secs}s"
    return f"{secs}s"


def whole_seconds(seconds: float) -> int:
    """Rounded down, but a sum of floats that is a hair below a whole number counts as that number."""
    return int(round(seconds, 3))
