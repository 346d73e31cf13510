"""Metrics of the cluster's users, kept in the replicated log."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from heliosd.cluster.metric_commands import (
    DeleteMetric,
    RegisterMetric,
    ResetMetrics,
    UpdateMetric,
    check_command,
)
from heliosd.config.values import duration
from heliosd.errors import Invalid, StatusTooLarge
from heliosd.protocol.views.custom_metrics import MetricType
from heliosd.web.rest.arguments import one_of
from heliosd.web.rest.route import Answer, Call, Nothing

from .cluster import MessageBody


class NewMetric(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    type: MetricType
    help: str = ""
    labels: dict[str, str] = {}
    buckets: tuple[float, ...] | UnsetType = UNSET
    ttl: float | str | UnsetType = UNSET
    """Seconds, or a duration such as "90s" or "5m"."""


class MetricChange(Struct, frozen=True, forbid_unknown_fields=True):
    """`value` for a gauge or a histogram's observation, `delta` for a counter.

    Helios' Go clients send both, the one that is not meant as 0.
    """

    name: str
    value: float | UnsetType = UNSET
    delta: float | UnsetType = UNSET


class ByName(Struct, frozen=True, forbid_unknown_fields=True):
    name: str | UnsetType = UNSET


class Named(Struct, frozen=True):
    message: str
    name: str


async def show_metrics(call: Call[ByName, Nothing]) -> Answer:
    metrics = call.services.backend.metrics
    return Answer(body=metrics.report() if call.query.name is UNSET else metrics.view(call.query.name))


async def register_metric(call: Call[Nothing, NewMetric]) -> Answer:
    metric = call.body
    command = RegisterMetric(
        name=metric.name,
        type=metric.type,
        help=metric.help,
        labels=metric.labels,
        buckets=None if metric.buckets is UNSET else metric.buckets,
        ttl=0.0 if metric.ttl is UNSET else _seconds(metric.ttl),
        at=call.now.wall,
    )
    known = call.services.backend.metrics
    limit = call.services.settings.current.websocket.max_status_bytes
    # A repetition may find the metric that it has registered.
    if command.name not in known and known.status_bytes(command) > limit:
        # What else is wrong with it comes first.
        check_command(command)
        known.copy().apply(command)
        raise StatusTooLarge(f"With this metric a status would have more than {limit} bytes of metrics")
    await call.services.backend.propose(command, call.key)
    return Answer(status=201, body=Named("Custom metric registered successfully", metric.name))


def _seconds(ttl: float | str) -> float:
    try:
        seconds = duration(ttl) if isinstance(ttl, str) else ttl
    except ValueError as error:
        raise Invalid(f"ttl {error}", field="ttl") from None
    if not seconds:
        raise Invalid("ttl must be longer than 0", field="ttl")
    return seconds


async def update_metric(call: Call[Nothing, MetricChange]) -> Answer:
    change = call.body
    value = None if change.value is UNSET else change.value
    delta = None if change.delta is UNSET else change.delta
    if value is not None and delta == 0:
        delta = None
        metrics = call.services.backend.metrics
        if value == 0 and change.name in metrics and metrics.view(change.name).type == "counter":
            value = None  # a counter's delta that is left out is 1, as a zero is for Helios
    elif value == 0 and delta is not None:
        value = None
    await call.services.backend.propose(
        UpdateMetric(name=change.name, value=value, delta=delta, at=call.now.wall), call.key
    )
    return Answer(body=Named("Metric updated successfully", change.name))


async def delete_metric(call: Call[ByName, ByName]) -> Answer:
    name = one_of(call.query.name, call.body.name, "name")
    await call.services.backend.propose(DeleteMetric(name=name, at=call.now.wall), call.key)
    return Answer(body=Named("Custom metric deleted successfully", name))


async def reset_metrics(call: Call[Nothing, Nothing]) -> Answer:
    await call.services.backend.propose(ResetMetrics(at=call.now.wall), call.key)
    return Answer(body=MessageBody("Custom metrics reset successfully"))
