"""`GET /metrics`: everything heliosd counts, in Prometheus' text format 0.0.4."""

from __future__ import annotations

from .clock import Instant
from .cluster.backend import Backend
from .hub.counters import HubCounters


def exposition(
    *, backend: Backend, hub_counters: HubCounters, ws_clients: int, queue_depth: int, now: Instant
) -> bytes:
    raise NotImplementedError
