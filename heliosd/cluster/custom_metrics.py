"""The custom metrics as a state machine: commands of the replicated log in, values out.

Deterministic: members that apply the same commands to equal sets hold equal sets after each one, and refuse the
same commands, whatever their clocks say.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from copy import copy
from itertools import accumulate

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from heliosd.clock import rfc3339
from heliosd.errors import Conflict, Invalid, NotFound
from heliosd.protocol.views.custom_metrics import (
    CustomMetricsReport,
    DeletionReason,
    MetricType,
    MetricView,
    Number,
)

from .metric_commands import (
    DEFAULT_BUCKETS,
    HISTOGRAM_SUFFIXES,
    DeleteMetric,
    ExpireMetric,
    MetricCommand,
    RegisterMetric,
    ResetMetrics,
    UpdateMetric,
    exposed_names,
)

MAX_METRICS = 1_000


class MetricsApplied(Struct, frozen=True):
    """What a command changed. `defined`: new metrics, and None for deleted ones, with the `reason` if no client
    deleted them. `moved`: metrics with a new value."""

    defined: dict[str, MetricView | None] = field(default_factory=dict)
    moved: dict[str, MetricView] = field(default_factory=dict)
    reason: DeletionReason | None = None


class MetricWithTtl(Struct, frozen=True):
    """A metric that is deleted when nothing is written to it for `ttl` seconds."""

    name: str
    ttl: float
    created_at: float
    writes: int
    """With each write it is one more."""


class _Metric(Struct, kw_only=True):
    """One metric as stored in a snapshot. Immutable once it is in a set: sets share them."""

    name: str
    type: MetricType
    help: str
    labels: dict[str, str]
    value: float = 0.0
    """Of a counter or a gauge."""
    bounds: tuple[float, ...] = ()
    counts: list[int] = []
    """Of a histogram: observations per bucket, not cumulative; the last bucket is above every bound."""
    sum: float = 0.0
    ttl: float = 0.0
    """Seconds; 0: none."""
    writes: int = 0
    """Of a metric with a ttl."""
    created_at: float
    updated_at: float

    def observe(self, value: float) -> None:
        """An observation equal to a bound counts in its bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def view(self) -> MetricView:
        if self.type != "histogram":
            return self._view(value=number(self.value))
        upto = list(accumulate(self.counts))
        return self._view(
            value=upto[-1],
            buckets=tuple(map(number, self.bounds)),
            bucket_counts=tuple(upto),
            count=upto[-1],
            sum=number(self.sum),
        )

    def _view(
        self,
        *,
        value: Number,
        buckets: tuple[Number, ...] | UnsetType = UNSET,
        bucket_counts: tuple[int, ...] | UnsetType = UNSET,
        count: int | UnsetType = UNSET,
        sum: Number | UnsetType = UNSET,  # noqa: A002
    ) -> MetricView:
        return MetricView(
            name=self.name,
            type=self.type,
            help=self.help,
            labels=dict(self.labels),
            value=value,
            buckets=buckets,
            bucket_counts=bucket_counts,
            count=count,
            sum=sum,
            created_at=rfc3339(self.created_at),
            updated_at=rfc3339(self.updated_at),
            ttl=number(self.ttl) if self.ttl else UNSET,
        )


_metric_decoder = msgspec.json.Decoder(_Metric)
_metrics_decoder: msgspec.json.Decoder[list[_Metric]] = msgspec.json.Decoder(list[_Metric])


class MetricSet:
    """All custom metrics, at most 1,000, in the order of their registration."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}
        self._sizes: dict[str, tuple[float, int]] = {}
        """By name: when the metric was created, and its bytes in a `status`."""

    def __len__(self) -> int:
        return len(self._metrics)

    def __contains__(self, name: object) -> bool:
        return name in self._metrics

    def apply(self, command: MetricCommand) -> MetricsApplied:
        """Carry out one committed command, which passed `check_command` when it was proposed.

        Raises `Invalid` (its field says which part), `NotFound` (field `name`) or `Conflict` (the name exists, or
        1,000 metrics do), and then changes nothing.
        """
        match command:
            case RegisterMetric():
                self._check_new(command)
                metric = self._metrics[command.name] = _new(command)
                return MetricsApplied(defined={command.name: metric.view()})
            case UpdateMetric():
                metric = self._known(command.name)
                _check_update(metric, command)
                metric = self._metrics[command.name] = _updated(metric, command)
                return MetricsApplied(moved={command.name: metric.view()})
            case DeleteMetric():
                self._known(command.name)
                del self._metrics[command.name]
                return MetricsApplied(defined={command.name: None})
            case ExpireMetric():
                metric = self._known(command.name)
                if (metric.created_at, metric.writes) != (command.created_at, command.writes):
                    raise Conflict(f"Metric {command.name} was written since", field="name")
                del self._metrics[command.name]
                return MetricsApplied(defined={command.name: None}, reason="expired")
            case ResetMetrics():
                gone = dict.fromkeys(self._metrics)
                self._metrics.clear()
                return MetricsApplied(defined=dict(gone))

    def with_ttl(self) -> list[MetricWithTtl]:
        """The metrics that end when they are not written to."""
        return [
            MetricWithTtl(each.name, each.ttl, each.created_at, each.writes)
            for each in self._metrics.values()
            if each.ttl
        ]

    def status_bytes(self, new: RegisterMetric | None = None) -> int:
        """How many bytes of a `status` the metrics take, with `new` among them; values may grow by some digits."""
        sizes = {}
        for name, metric in self._metrics.items():
            known = self._sizes.get(name)
            if known is None or known[0] != metric.created_at:
                known = metric.created_at, _status_bytes(metric)
            sizes[name] = known
        self._sizes = sizes
        total = sum(size for _, size in sizes.values())
        return total if new is None else total + _status_bytes(_new(new))

    def encode(self) -> bytes:
        """The whole set, for a snapshot: equal bytes for equal sets."""
        return msgspec.json.encode(list(self._metrics.values()))

    def restore(self, data: bytes) -> None:
        """Become the set that `encode` turned into these bytes; b"" is the empty set.

        Raises one of `errors.BAD_JSON` on other bytes, and then changes nothing.
        """
        metrics = _metrics_decoder.decode(data) if data else []
        self._metrics = {metric.name: metric for metric in metrics}

    def copy(self) -> MetricSet:
        """An independent set with the same metrics. Cheap: only the names are copied."""
        other = MetricSet()
        other._metrics = dict(self._metrics)
        return other

    def encode_one(self, name: str) -> bytes:
        """One metric as bytes. Raises `NotFound` (field `name`)."""
        return msgspec.json.encode(self._known(name))

    def put(self, name: str, data: bytes) -> None:
        """Replace, or append, the metric of this name by what `encode_one` returned.

        Raises one of `errors.BAD_JSON` on other bytes, and then changes nothing.
        """
        metric = _metric_decoder.decode(data)
        if metric.name != name:
            raise msgspec.ValidationError(f"this is the metric {metric.name!r}")
        self._metrics[name] = metric

    def remove(self, name: str) -> None:
        """Remove the metric of this name, if there is one."""
        self._metrics.pop(name, None)

    def clear(self) -> None:
        self._metrics.clear()

    def view(self, name: str) -> MetricView:
        """Raises `NotFound` (field `name`)."""
        return self._known(name).view()

    def views(self) -> dict[str, MetricView]:
        return {name: metric.view() for name, metric in self._metrics.items()}

    def types(self) -> dict[str, MetricType]:
        """The type of each, by name."""
        return {name: metric.type for name, metric in self._metrics.items()}

    def report(self) -> CustomMetricsReport:
        """`GET …/custom-metrics`."""
        types = Counter(metric.type for metric in self._metrics.values())
        return CustomMetricsReport(
            total_metrics=len(self._metrics),
            counter_metrics=types["counter"],
            gauge_metrics=types["gauge"],
            histogram_metrics=types["histogram"],
            metrics=self.views(),
        )

    def _known(self, name: str) -> _Metric:
        try:
            return self._metrics[name]
        except KeyError:
            raise NotFound("Unknown metric", field="name") from None

    def _check_new(self, command: RegisterMetric) -> None:
        if command.name in self._metrics:
            raise Conflict(f"Metric {command.name} already exists", field="name")
        for other in self._colliding(command):
            raise Invalid(f"In /metrics the name would collide with that of {other}", field="name")
        if len(self._metrics) >= MAX_METRICS:
            raise Conflict(f"There are {MAX_METRICS} metrics, which is the limit", field="name")

    def _colliding(self, command: RegisterMetric) -> Iterator[str]:
        """Other metrics that would share a name with this one in `/metrics`.

        Only histograms show more names than their own.
        """
        for shown in exposed_names(command.name, command.type):
            if shown in self._metrics:
                yield shown
        for suffix in HISTOGRAM_SUFFIXES:
            base = self._metrics.get(command.name.removesuffix(suffix))
            if base is not None and base.type == "histogram" and base.name != command.name:
                yield base.name


def number(value: float) -> Number:
    """A whole value as an int, which JSON writes without a point; beyond 2^53 an exponent does as well."""
    return int(value) if float(value).is_integer() and abs(value) <= 2**53 else value


def _new(command: RegisterMetric) -> _Metric:
    bounds = (command.buckets or DEFAULT_BUCKETS) if command.type == "histogram" else ()
    return _Metric(
        name=command.name,
        type=command.type,
        help=command.help,
        labels=dict(command.labels),
        bounds=bounds,
        counts=[0] * (len(bounds) + 1) if bounds else [],
        ttl=command.ttl,
        created_at=command.at,
        updated_at=command.at,
    )


def _status_bytes(metric: _Metric) -> int:
    return len(msgspec.json.encode({metric.name: metric.view()}))


def _check_update(metric: _Metric, command: UpdateMetric) -> None:
    if metric.type == "counter":
        if command.value is not None:
            raise Invalid("A counter takes delta", field="value")
        if not math.isfinite(metric.value + _delta(command)):
            raise Invalid("The counter would overflow", field="delta")
        return
    if command.delta is not None:
        raise Invalid(f"A {metric.type} takes value", field="delta")
    if command.value is None:
        raise Invalid(f"A {metric.type} needs value", field="value")
    if metric.type == "histogram" and not math.isfinite(metric.sum + command.value):
        raise Invalid("The histogram's sum would overflow", field="value")


def _delta(command: UpdateMetric) -> float:
    return 1.0 if command.delta is None else command.delta


def _updated(metric: _Metric, command: UpdateMetric) -> _Metric:
    metric = copy(metric)
    match metric.type:
        case "counter":
            metric.value += _delta(command)
        case "gauge":
            metric.value = command.value or 0.0
        case "histogram":
            metric.counts = list(metric.counts)
            metric.observe(command.value or 0.0)
    metric.updated_at = command.at
    metric.writes += 1 if metric.ttl else 0
    return metric
