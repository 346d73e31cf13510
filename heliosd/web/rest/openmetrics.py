"""`GET /metrics` in the OpenMetrics format, and which format a scraper asks for.

OpenMetrics wants a counter's samples called NAME_total, and no sum of a histogram that has negative bounds or is
negative. Each type takes up further names than those that it shows, such as NAME_created, and a page in which two
families take up the same name is refused as a whole. A custom metric that cannot have its type is therefore of type
`unknown` here, under the names that it has in the text format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from math import inf
from typing import Final

from msgspec import UNSET
from prometheus_client.core import Metric, Sample
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from heliosd.protocol.views.custom_metrics import MetricType, MetricView

END: Final = b"# EOF\n"
"""The last line of a page."""
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


def openmetrics_text(families: Iterable[Metric]) -> bytes:
    """A part of a page, without the end mark."""
    text: bytes = generate_latest(Families(families))  # type: ignore[no-untyped-call]
    return text.removesuffix(END)


class CustomFamilies:
    """The families of all custom metrics of one page."""

    def __init__(self, types: Mapping[str, MetricType]) -> None:
        """`types`: all of them, by name."""
        self._taken = Counter(each for name, kind in types.items() for each in _taken_up(name, kind))

    def of(self, view: MetricView) -> Iterator[Metric]:
        """The families of one of them: one, but for a histogram of type `unknown`."""
        typed = all(self._taken[each] == 1 for each in _taken_up(view.name, view.type))
        if view.type == "histogram":
            yield from _histogram(view, typed=typed)
            return
        name, kind = view.name, view.type
        if kind == "counter":
            typed = typed and _base(name) != name
            name = _base(name) if typed else name
        metric = Metric(name, view.help, kind if typed or kind == "gauge" else "unknown")
        metric.samples = [Sample(view.name, view.labels, view.value)]
        yield metric


def _base(counter: str) -> str:
    return counter.removesuffix("_total") or counter


def _taken_up(name: str, kind: MetricType) -> set[str]:
    """The names that a family of this type takes up (OpenMetrics 1.0, "Suffixes")."""
    match kind:
        case "histogram":
            return {name, *(f"{name}{suffix}" for suffix in ("_bucket", "_count", "_sum", "_created"))}
        case "counter" if _base(name) != name:
            return {name, _base(name), f"{_base(name)}_created"}
        case _:
            return {name}


def _histogram(view: MetricView, *, typed: bool) -> Iterator[Metric]:
    assert view.buckets is not UNSET
    assert view.bucket_counts is not UNSET
    assert view.count is not UNSET
    assert view.sum is not UNSET
    buckets = []
    for bound, count in zip((*view.buckets, inf), view.bucket_counts, strict=True):
        shown = "+Inf" if bound == inf else repr(float(bound))
        buckets.append(Sample(f"{view.name}_bucket", {**view.labels, "le": shown}, count))
    sums = [Sample(f"{view.name}_{name}", view.labels, getattr(view, name)) for name in ("count", "sum")]
    if typed:
        metric = Metric(view.name, view.help, "histogram")
        metric.samples = buckets + (sums if view.buckets[0] >= 0 <= view.sum else [])
        yield metric
        return
    for samples in (buckets, sums[:1], sums[1:]):
        metric = Metric(samples[0].name, view.help, "unknown")
        metric.samples = samples
        yield metric
