"""The latencies that members measured to each other, as far as this node learns them. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from heliosd.clock import Instant
from heliosd.protocol.views.latency import LatencyCell, LatencyMatrixReport

SAMPLES = 100
KEPT_SECONDS = 60.0
"""A pair of which nothing newer is known is left out. etcd measures every 30 s."""


@dataclass(slots=True)
class _Pair:
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    at: float = 0.0
    """Of the last sample, monotonic."""


class LatencyMatrix:
    """Round trips by who measured them and to whom. A member that is removed has to be forgotten."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], _Pair] = {}

    def add(self, member: str, peer: str, seconds: float, now: Instant) -> None:
        """`member` had an answer from `peer` after so long."""
        pair = self._pairs.setdefault((member, peer), _Pair())
        pair.samples.append(seconds)
        pair.at = now.mono

    def forget(self, member: str) -> None:
        """Nothing from or to this member is shown any more."""
        self._pairs = {pair: kept for pair, kept in self._pairs.items() if member not in pair}

    def report(self, now: Instant) -> LatencyMatrixReport:
        """The pairs of the last minute."""
        rows: dict[str, dict[str, LatencyCell]] = {}
        for (member, peer), pair in sorted(self._pairs.items()):
            age = now.mono - pair.at
            if age <= KEPT_SECONDS:
                rows.setdefault(member, {})[peer] = LatencyCell(
                    last_value_ms=round(pair.samples[-1] * 1000, 3),
                    avg_value_ms=round(sum(pair.samples) / len(pair.samples) * 1000, 3),
                    max_value_ms=round(max(pair.samples) * 1000, 3),
                    count=len(pair.samples),
                    age_ms=round(age * 1000),
                )
        return LatencyMatrixReport(rows)
