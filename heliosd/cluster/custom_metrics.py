"""The custom metrics as a state machine: commands of the replicated log in, values out."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import UNSET, Struct, UnsetType

from .metric_commands import (
    DeleteMetric,
    MetricCommand,
    MetricType,
    RegisterMetric,
    ResetMetrics,
    UpdateMetric,
    check_command,
    decode_command,
    encode_command,
)

__all__ = [
    "Applied",
    "CustomMetricsReport",
    "DeleteMetric",
    "MetricCommand",
    "MetricSet",
    "MetricType",
    "MetricView",
    "RegisterMetric",
    "ResetMetrics",
    "UpdateMetric",
    "check_command",
    "decode_command",
    "encode_command",
]


class MetricView(Struct, frozen=True, kw_only=True):
    """One metric as clients see it."""

    name: str
    type: MetricType
    help: str
    labels: dict[str, str]
    value: float
    """A histogram's is its count."""
    buckets: dict[str, int] | UnsetType = UNSET
    """Histograms only: upper bound as text ("0.005", "1", "+Inf") -> observations up to it, ascending."""
    count: int | UnsetType = UNSET
    sum: float | UnsetType = UNSET
    created_at: str
    updated_at: str


class CustomMetricsReport(Struct, frozen=True, kw_only=True):
    """`GET …/custom-metrics`."""

    total_metrics: int
    counter_metrics: int
    gauge_metrics: int
    histogram_metrics: int
    metrics: dict[str, MetricView]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a command changed: `defined` came (or, None, went), `moved` has a new value."""

    defined: dict[str, MetricView | None] = field(default_factory=dict)
    moved: dict[str, MetricView] = field(default_factory=dict)


class MetricSet:
    def apply(self, command: MetricCommand) -> Applied:
        raise NotImplementedError

    def check(self, command: MetricCommand) -> None:
        """Raise what `apply` would raise now; changes nothing."""
        raise NotImplementedError

    def encode(self) -> bytes:
        raise NotImplementedError

    def restore(self, data: bytes) -> None:
        raise NotImplementedError

    def view(self, name: str) -> MetricView:
        """Raises `NotFound` (field `name`)."""
        raise NotImplementedError

    def views(self) -> dict[str, MetricView]:
        raise NotImplementedError

    def report(self, name: str | None = None) -> CustomMetricsReport | MetricView:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError
