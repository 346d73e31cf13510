"""The JSON shapes of custom metrics, in `GET …/custom-metrics`, in the status and on the WebSocket."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

MetricType = Literal["counter", "gauge", "histogram"]


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
