"""Custom metrics with a time to live: which of them were not written to in time, and their deletion.

1. A metric is deleted by a command in the cluster's log, never by a clock alone: all nodes delete it at the same
   place, and one that was written in between is kept.
2. Time is measured here on the monotonic clock, from the last write that was applied; after a start, from the
   start. So no leap of the wall clock ends a metric, and none ends early.
3. Time in which nothing could be written does not count: without a leader, and while this process stood still.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from heliosd.clock import Instant, next_beat
from heliosd.errors import RequestRefused, StoreFull
from heliosd.protocol.events import MetricValuesChanged

from .backend import Backend
from .custom_metrics import MetricWithTtl
from .metric_commands import ExpireMetric

CHECK_SECONDS = 0.25
IDLE_SECONDS = 1.0
"""Between two checks while no metric has a ttl."""
MAX_STEP_SECONDS = 1.0
"""A longer time between two checks is this process's own pause."""


class MetricExpiry:
    """Measures how long metrics were not written to. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[MetricWithTtl, float]] = {}
        self._checked_at: float | None = None

    def due(self, metrics: Sequence[MetricWithTtl], now: float, *, writable: bool) -> list[MetricWithTtl]:
        """Of these, the metrics whose time has passed. Call it every `CHECK_SECONDS` with all that have a ttl,
        while there are any; `writable`: writes are possible now."""
        passed = 0.0 if self._checked_at is None else now - self._checked_at
        self._checked_at = now
        counted = min(passed, MAX_STEP_SECONDS) if writable else 0.0
        before, self._left = self._left, {}
        for metric in metrics:
            known, left = before.get(metric.name, (None, 0.0))
            self._left[metric.name] = (metric, left - counted if known == metric else metric.ttl)
        return [metric for metric, left in self._left.values() if left <= 0 and writable]


async def expire_metrics(backend: Backend, now: Callable[[], Instant]) -> None:
    """Delete metrics whose time has passed, until cancelled."""
    expiry = MetricExpiry()
    while True:
        await _next_check(backend)
        with_ttl = backend.metrics.with_ttl()
        # To find out whether writes are possible costs more than all else here.
        writable = bool(with_ttl) and backend.not_ready() is None
        due = expiry.due(with_ttl, now().mono, writable=writable)
        if not due:
            continue
        async with trio.open_nursery() as nursery:
            for metric in due:
                nursery.start_soon(_expire, backend, metric, now().wall)


async def _next_check(backend: Backend) -> None:
    if backend.metrics.with_ttl():
        await trio.sleep_until(next_beat(trio.current_time(), CHECK_SECONDS))
        return
    # The time of the first one begins with its event. What was there before this process comes without any.
    async with backend.events() as events:
        while not backend.metrics.with_ttl():
            with trio.move_on_at(next_beat(trio.current_time(), IDLE_SECONDS)):
                while isinstance(await events.receive(), MetricValuesChanged):
                    pass


async def _expire(backend: Backend, metric: MetricWithTtl, at: float) -> None:
    command = ExpireMetric(name=metric.name, created_at=metric.created_at, writes=metric.writes, at=at)
    try:
        await backend.propose(command)
    except (RequestRefused, StoreFull):
        # It was written to or deleted in between, which the next check sees; or it cannot be deleted now.
        await trio.lowlevel.checkpoint()
