"""`GET /metrics` in the OpenMetrics format, and which format a scraper asks for.

OpenMetrics wants a counter's samples called NAME_total and a histogram with negative bounds without its sum. A
custom counter of another name is therefore of type `unknown` here: it keeps its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from math import inf
from typing import Final

from msgspec import UNSET
from prometheus_client.core import Metric, Sample
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from heliosd.protocol.views.custom_metrics import MetricView

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Format(Enum):
    """What a response of `/metrics` is written in."""

    PLAIN = auto()
    """Prometheus' text, for whoever has no preference: the names of earlier builds are left out."""
    TEXT = auto()
    """Prometheus' text with those, for a scraper that asks for text/plain."""
    OPENMETRICS = auto()
    """With those as well."""


def wanted_format(accept: str) -> Format:
    """What an Accept header prefers (RFC 9110, section 12.5.1)."""
    best = (0.0, Format.PLAIN)
    for part in accept.split(","):
        media_type, *given = (piece.strip().lower() for piece in part.split(";"))
        parameters = dict(piece.partition("=")[::2] for piece in given)
        known = {"application/openmetrics-text": Format.OPENMETRICS, "text/plain": Format.TEXT}
        found = known.get(media_type)
        if found is None or (
            found is Format.OPENMETRICS and parameters.get("version", "1.0.0").strip('"') != "1.0.0"
        ):
            continue
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            continue
        if quality > best[0]:
            best = (quality, found)
    return best[1]


class Families(Collector):
    """These families, for prometheus_client."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render_openmetrics(families: Iterable[Metric], views: Iterable[MetricView]) -> bytes:
    """All of these, and the end mark."""
    custom = list(views)
    names = {view.name for view in custom}
    whole = [*families, *(_custom(view, names) for view in custom)]
    text: bytes = generate_latest(Families(whole))  # type: ignore[no-untyped-call]
    return text


def _custom(view: MetricView, names: set[str]) -> Metric:
    if view.type == "histogram":
        return _histogram(view)
    name, kind = view.name, "gauge"
    if view.type == "counter":
        name, kind = view.name.removesuffix("_total"), "counter"
        if name in {view.name, ""} or name in names:
            name, kind = view.name, "unknown"
    metric = Metric(name, view.help, kind)
    metric.samples = [Sample(view.name, view.labels, view.value)]
    return metric


def _histogram(view: MetricView) -> Metric:
    assert view.buckets is not UNSET
    assert view.bucket_counts is not UNSET
    assert view.count is not UNSET
    assert view.sum is not UNSET
    metric = Metric(view.name, view.help, "histogram")
    for bound, count in zip((*view.buckets, inf), view.bucket_counts, strict=True):
        shown = "+Inf" if bound == inf else repr(float(bound))
        metric.add_sample(f"{view.name}_bucket", {**view.labels, "le": shown}, count)
    if view.buckets[0] >= 0:
        metric.add_sample(f"{view.name}_count", view.labels, view.count)
        metric.add_sample(f"{view.name}_sum", view.labels, view.sum)
    return metric
