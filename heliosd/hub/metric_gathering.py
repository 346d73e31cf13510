"""Values of custom metrics that changed and are not told yet: gathered for a while into one message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from heliosd.protocol.views.custom_metrics import MetricView


class MetricGathering:
    """`due`: when what was gathered is to be told, in monotonic seconds; infinity if nothing was."""

    def __init__(self) -> None:
        self.due = inf
        self._metrics: dict[str, MetricView] = {}

    def add(self, metrics: Mapping[str, MetricView], due: float) -> None:
        """These have new values; the first that come fix when they are told."""
        self._metrics.update(metrics)
        if self.due == inf:
            self.due = due

    def forget(self, names: Iterable[str]) -> None:
        """These were registered anew or deleted: what waits for them is not told after that."""
        for name in names:
            self._metrics.pop(name, None)

    def take(self) -> Mapping[str, MetricView]:
        """All that was gathered, removed."""
        taken, self._metrics, self.due = self._metrics, {}, inf
        return taken
