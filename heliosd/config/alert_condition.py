"""What an `[[alert]]` waits for, as its key `when` says it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from msgspec import Struct

LASTING = ("leader_lost", "peer_unhealthy", "quorum_at_risk")
"""Conditions that last: they end when a leader is elected, when the peer is healthy or no member any more, and when
the cluster can lose one more member."""
MOMENTS = ("leader_elected", "peer_removed", "snapshot_failed")
"""Conditions that begin with an event. They end when another leader is elected or none is left, when the peer is
added again, and when a snapshot succeeds."""
_METRIC = re.compile(r"metric:([a-zA-Z_:][a-zA-Z0-9_:]{0,199})\s*>\s*(\S+)")


class AlertCondition(Struct, frozen=True):
    """One of `LASTING` or `MOMENTS`, or `metric`: the custom metric of this name is above `above`."""

    kind: str
    metric: str = ""
    above: float = 0.0

    def __str__(self) -> str:
        return f"metric:{self.metric}>{repr(self.above).removesuffix('.0')}" if self.metric else self.kind


def parse_condition(text: str) -> AlertCondition:
    """A condition as the file writes it. Raises ValueError, whose text says what may stand there."""
    if text in (*LASTING, *MOMENTS):
        return AlertCondition(text)
    found = _METRIC.fullmatch(text)
    if found is None:
        raise ValueError(f"must be one of {', '.join((*LASTING, *MOMENTS))}, or metric:NAME>VALUE")
    try:
        above = float(found[2])
    except ValueError:
        above = math.nan
    if not math.isfinite(above):
        raise ValueError(f"{found[2]!r} is no number that a metric can be above")
    return AlertCondition("metric", found[1], above)


def check_target(url: str, command: Sequence[str], *, has_secret: bool) -> dict[str, str]:
    """What is wrong with where an alert is sent, by key."""
    problems = {}
    if not url and not command:
        problems["url"] = "url or command is needed"
    if url and command:
        problems["command"] = "url and command cannot both stand; make two alerts of it"
    if has_secret and not url:
        problems["secret_file"] = "is for url only"  # noqa: S105
    return problems
