"""What heliosd reports of itself in /metrics, as far as the benchmark looks."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from math import inf, nan

from .process import Running

LAG = "heliosd_loop_lag_seconds"
QUEUED = "heliosd_ws_queue_depth"
_LINE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$", re.MULTILINE)
_LE = re.compile(r'le="([^"]+)"')


def scraped(server: Running) -> str:
    """The text of /metrics, over plain HTTP."""
    request = urllib.request.Request(
        f"http://{server.address}/metrics", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def value(text: str, name: str) -> float:
    """The sum of a metric's values over all its labels; nan if it is not there."""
    found = [float(line["value"]) for line in _LINE.finditer(text) if line["name"] == name]
    return sum(found) if found else nan


def buckets(text: str, name: str) -> dict[float, float]:
    """A histogram's counts by upper bound, each with all below it in it; empty if it is not there."""
    counts: dict[float, float] = {}
    for line in _LINE.finditer(text):
        if line["name"] == f"{name}_bucket" and (bound := _LE.search(line["labels"] or "")):
            counts[float(bound[1])] = counts.get(float(bound[1]), 0.0) + float(line["value"])
    return counts


def quantile(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float:
    """What that share of the observations between two looks did not exceed.

    Within a bucket they are taken to lie evenly, as Prometheus does; nan without any, inf beyond the last bound.
    """
    grown = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    total = max(grown.values(), default=0.0)
    if not total:
        return nan
    wanted, lower, below = share * total, 0.0, 0.0
    for bound, count in grown.items():
        if count >= wanted:
            return inf if bound == inf else lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return inf
