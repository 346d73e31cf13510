"""Records of calls to a peer, and statistics of them.

Statistics cover the last 100 answered calls of each kind. A percentile is the nearest rank: the smallest sample
that at least that share of all samples does not exceed. Milliseconds are rounded to microseconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import chain

from msgspec import UNSET

from heliosd.histogram import Histogram
from heliosd.protocol.views.latency import Stats

SAMPLES_KEPT = 100
LATENCY_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of `raft_peer_latency_seconds`."""


class CallRecord:
    """Calls of one kind to one peer."""

    __slots__ = (
        "errors",
        "errors_before_reset",
        "last_answer",
        "last_error",
        "ok_before_reset",
        "samples",
        "seconds",
    )

    def __init__(self) -> None:
        self.samples: deque[float] = deque(maxlen=SAMPLES_KEPT)
        self.seconds = Histogram(LATENCY_BUCKETS)
        self.last_answer = -math.inf
        """Monotonic seconds."""
        self.errors = 0
        self.last_error: float | None = None
        # Counters in /metrics must not go back, so a reset remembers their values.
        self.ok_before_reset = 0
        self.errors_before_reset = 0

    @property
    def ok_since_reset(self) -> int:
        return self.seconds.count - self.ok_before_reset

    @property
    def errors_since_reset(self) -> int:
        return self.errors - self.errors_before_reset

    def reset(self) -> None:
        self.samples.clear()
        self.last_error = None
        self.ok_before_reset = self.seconds.count
        self.errors_before_reset = self.errors


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of one or more ascending samples; `percent` is 1..100."""
    # In integers: 0.9 * 10 as floats may round up to the next rank.
    return ascending[-(-len(ascending) * percent // 100) - 1]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def stats_of(calls: Sequence[CallRecord]) -> Stats:
    """Statistics of all these calls; `last_value_ms` is the latest answer's."""
    ascending = sorted(chain.from_iterable(each.samples for each in calls))
    count = len(ascending)
    answered = [each for each in calls if each.samples]
    last = max(answered, key=lambda each: each.last_answer).samples[-1] if answered else 0.0
    errors_at = [each.last_error for each in calls if each.last_error is not None]
    if not ascending:
        ascending = [0.0]
    mean = math.fsum(ascending) / len(ascending)
    # math.dist sums the squares without a loop in Python.
    deviation = math.dist(ascending, [mean] * len(ascending)) / math.sqrt(len(ascending))
    return Stats(
        count=count,
        last_value_ms=_milliseconds(last),
        min_value_ms=_milliseconds(ascending[0]),
        max_value_ms=_milliseconds(ascending[-1]),
        avg_value_ms=_milliseconds(mean),
        p50_value_ms=_milliseconds(percentile(ascending, 50)),
        p90_value_ms=_milliseconds(percentile(ascending, 90)),
        p99_value_ms=_milliseconds(percentile(ascending, 99)),
        std_dev_ms=_milliseconds(deviation),
        error_count=sum(each.errors_since_reset for each in calls),
        last_error_unix=int(max(errors_at)) if errors_at else UNSET,
    )


def error_rate(calls: Sequence[CallRecord]) -> float:
    """Share of these calls that failed since the start or the last reset; 0 without calls."""
    errors = sum(each.errors_since_reset for each in calls)
    total = errors + sum(each.ok_since_reset for each in calls)
    return round(errors / total, 6) if total else 0.0
