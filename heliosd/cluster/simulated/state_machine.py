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

    def _known(self, name: str, view: MetricView) -> bool:
        """Whether it is the same metric as before: one that was deleted and registered anew has another time."""
        before = self.before.get(name)
        return before is not None and (before.created_at, before.type) == (view.created_at, view.type)

    def difference(self) -> MetricsApplied:
        """What the last `restore` changed, in terms of commands."""
        after = self.metrics.views()
        defined: dict[str, MetricView | None] = {name: None for name in self.before if name not in after}
        defined |= {name: view for name, view in after.items() if not self._known(name, view)}
        known = {name: view for name, view in after.items() if name not in defined}
        moved = {name: view for name, view in known.items() if self.before[name] != view}
        return MetricsApplied(defined=defined, moved=moved)
