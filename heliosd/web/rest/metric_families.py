"""Families of `/metrics` in the few forms that heliosd uses."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from heliosd.histogram import Histogram


def gauge(name: str, text: str, value: float, node: str | None = None) -> Metric:
    return _one(GaugeMetricFamily, name, text, value, node)


def counter(name: str, text: str, value: float, node: str | None = None) -> Metric:
    return _one(CounterMetricFamily, name, text, value, node)


def _one(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, text: str, value: float, node: str | None
) -> Metric:
    """A family of one sample; with `node` as its label `node_id`."""
    family = kind(name, text, labels=[] if node is None else ["node_id"])
    family.add_metric([] if node is None else [node], value)
    return family


def labelled_counters(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, count in sorted(counts.items()):
        family.add_metric([key], count)
    return family


def labelled_gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def add_histogram(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    buckets = [("+Inf" if le == float("inf") else str(le), count) for le, count in histogram.cumulative()]
    family.add_metric(labels, buckets, histogram.sum)
