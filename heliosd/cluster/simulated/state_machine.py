"""The custom metrics as the state machine of a simulated member."""

from __future__ import annotations

from heliosd.cluster.custom_metrics import MetricsApplied, MetricSet
from heliosd.cluster.metric_commands import decode_command
from heliosd.errors import RequestRefused
from heliosd.protocol.views.custom_metrics import MetricView


class MetricStateMachine:
    """One member's metrics. Every member applies every command, and all refuse the same ones."""

    def __init__(self) -> None:
        self.metrics = MetricSet()
        self.before: dict[str, MetricView] = {}
        """The metrics before the last `restore`."""

    def apply(self, data: bytes) -> MetricsApplied | RequestRefused:
        """What the command changed, or why it was refused."""
        try:
            return self.metrics.apply(decode_command(data))
        except RequestRefused as refused:
            return refused.with_traceback(None)

    def encode(self) -> bytes:
        return self.metrics.encode()

    def restore(self, data: bytes) -> None:
        self.before = self.metrics.views()
        self.metrics.restore(data)

    def difference(self) -> MetricsApplied:
        """What the last `restore` changed, in terms of commands."""
        after = self.metrics.views()
        defined: dict[str, MetricView | None] = {name: None for name in self.before if name not in after}
        defined |= {name: view for name, view in after.items() if name not in self.before}
        moved = {name: view for name, view in after.items() if self.before.get(name, view) != view}
        return MetricsApplied(defined=defined, moved=moved)
