"""The JSON shapes of custom metrics, in `GET …/custom-metrics`, in the status and on the WebSocket."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

MetricType = Literal["counter", "gauge", "histogram"]
DeletionReason = Literal["expired"]
"""Why a metric was deleted, other than by a client. `expired`: nothing was written to it for its `ttl`."""

Number = int | float


class MetricView(Struct, frozen=True, kw_only=True):
    """One metric as clients see it."""

    name: str
    type: MetricType
    help: str
    labels: dict[str, str]
    value: Number
    """A histogram's is its count. A whole number is written without a point, here and below."""
    buckets: tuple[Number, ...] | UnsetType = UNSET
    """Histograms only, as the next three: the upper bounds as registered, ascending."""
    bucket_counts: tuple[int, ...] | UnsetType = UNSET
    """Observations up to each bound, and last up to +Inf."""
    count: int | UnsetType = UNSET
    sum: Number | UnsetType = UNSET
    created_at: str
    updated_at: str
    ttl: Number | UnsetType = UNSET
    """Seconds without a write after which it is deleted, where it has such a limit."""


class CustomMetricsReport(Struct, frozen=True, kw_only=True):
    """`GET …/custom-metrics`."""

    total_metrics: int
    counter_metrics: int
    gauge_metrics: int
    histogram_metrics: int
    metrics: dict[str, MetricView]
