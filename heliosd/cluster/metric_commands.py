"""Commands on custom metrics for the replicated log, and the rules that each must keep by itself.

A command carries the proposer's wall time, so that all members that apply it reach the same state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec
from msgspec import Struct

from heliosd.errors import Invalid
from heliosd.protocol.views.custom_metrics import MetricType

from .idempotency import WriteKey

DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MAX_NAME = 200
"""Characters of a metric's or a label's name."""
MAX_HELP = 4_096
MAX_LABEL_VALUE = 1_024
MAX_LABELS = 16
MAX_BUCKETS = 100
MIN_TTL, MAX_TTL = 0.1, 100 * 365 * 86_400.0
"""Seconds."""
RESERVED_PREFIXES = ("__", "raft_", "heliosd_", "process_", "python_")
HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")

# Prometheus' data model, in its ASCII form.
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


# The tag's key is `op`: msgspec's default, `type`, is the metric's own.
class RegisterMetric(Struct, frozen=True, kw_only=True, tag_field="op", tag="register"):
    """Create a metric. `buckets` are a histogram's upper bounds; None stands for `DEFAULT_BUCKETS`. Without a write
    for `ttl` seconds it is deleted; 0: never."""

    name: str
    type: MetricType
    help: str = ""
    labels: dict[str, str] = {}
    buckets: tuple[float, ...] | None = None
    ttl: float = 0.0
    at: float
    """Unix seconds."""


class UpdateMetric(Struct, frozen=True, kw_only=True, tag_field="op", tag="update"):
    """`value` sets a gauge or is observed by a histogram; `delta` is added to a counter (None = 1)."""

    name: str
    value: float | None = None
    delta: float | None = None
    at: float


class DeleteMetric(Struct, frozen=True, kw_only=True, tag_field="op", tag="delete"):
    name: str
    at: float


class ExpireMetric(Struct, frozen=True, kw_only=True, tag_field="op", tag="expire"):
    """Delete a metric whose time to live has passed: the one that was created then and written so often. One that
    was written since is refused (`Conflict`)."""

    name: str
    created_at: float
    writes: int
    at: float


class ResetMetrics(Struct, frozen=True, kw_only=True, tag_field="op", tag="reset"):
    """Delete all metrics."""

    at: float


MetricCommand = RegisterMetric | UpdateMetric | DeleteMetric | ExpireMetric | ResetMetrics


class KeyedCommand(Struct, frozen=True, tag_field="op", tag="keyed"):
    """A command that is carried out once, however often it stands in the log."""

    key: WriteKey
    command: MetricCommand


_decoder: msgspec.json.Decoder[MetricCommand | KeyedCommand] = msgspec.json.Decoder(
    MetricCommand | KeyedCommand
)


def encode_command(command: MetricCommand, key: WriteKey | None = None) -> bytes:
    return msgspec.json.encode(command if key is None else KeyedCommand(key, command))


def decode_command(data: bytes) -> MetricCommand | KeyedCommand:
    """The inverse of `encode_command`. Raises one of `errors.BAD_JSON` on anything else."""
    return _decoder.decode(data)


def check_command(command: MetricCommand) -> None:
    """Raise `Invalid`, with its field, if the command can never succeed. Called once, before it is proposed."""
    match command:
        case RegisterMetric():
            _check_name(command.name, command.type)
            _check_text("help", command.help, MAX_HELP)
            _check_labels(command.labels, command.type)
            _check_buckets(command.buckets, command.type)
            if command.ttl and not MIN_TTL <= command.ttl <= MAX_TTL:
                raise Invalid(f"ttl must be from {MIN_TTL:g} s to {MAX_TTL:.0f} s", field="ttl")
        case UpdateMetric():
            _check_text("name", command.name, MAX_NAME)
            _check_number("value", command.value)
            _check_number("delta", command.delta)
            if command.delta is not None and command.delta < 0:
                raise Invalid("A counter only grows", field="delta")
        case DeleteMetric() | ExpireMetric():
            _check_text("name", command.name, MAX_NAME)
        case ResetMetrics():
            pass


def exposed_names(name: str, kind: MetricType) -> tuple[str, ...]:
    """All names under which `/metrics` shows this metric."""
    if kind == "histogram":
        return (name, *(name + suffix for suffix in HISTOGRAM_SUFFIXES))
    return (name,)


def _check_name(name: str, kind: MetricType) -> None:
    if not _METRIC_NAME.fullmatch(name):
        raise Invalid("A metric's name must match [a-zA-Z_:][a-zA-Z0-9_:]*", field="name")
    if len(name) > MAX_NAME:
        raise Invalid(f"A metric's name has at most {MAX_NAME} characters", field="name")
    # A histogram called `raft` would show as `raft_sum`.
    if any(shown.startswith(RESERVED_PREFIXES) for shown in exposed_names(name, kind)):
        raise Invalid(f"Names in {', '.join(RESERVED_PREFIXES)} are reserved", field="name")


def _check_text(field: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise Invalid(f"{field} has at most {limit} characters", field=field)
    if "\0" in text:
        raise Invalid(f"{field} must not contain NUL", field=field)
    # A lone surrogate is no character, and no UTF-8 can carry it.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Invalid(f"{field} must be Unicode text without lone surrogates", field=field)


def _check_labels(labels: Mapping[str, str], kind: MetricType) -> None:
    if len(labels) > MAX_LABELS:
        raise Invalid(f"A metric has at most {MAX_LABELS} labels", field="labels")
    for name, value in labels.items():
        if not _LABEL_NAME.fullmatch(name) or len(name) > MAX_NAME:
            raise Invalid(
                f"A label's name must match [a-zA-Z_][a-zA-Z0-9_]* with at most {MAX_NAME} characters",
                field="labels",
            )
        if name.startswith("__"):
            raise Invalid("Label names in __ are reserved", field="labels")
        if name == "le" and kind == "histogram":
            raise Invalid("The label le of a histogram names its buckets", field="labels")
        _check_text(f"labels.{name}", value, MAX_LABEL_VALUE)


def _check_buckets(buckets: Sequence[float] | None, kind: MetricType) -> None:
    if buckets is None:
        return
    if kind != "histogram":
        raise Invalid("Only a histogram has buckets", field="buckets")
    if not 1 <= len(buckets) <= MAX_BUCKETS:
        raise Invalid(f"A histogram has 1 to {MAX_BUCKETS} buckets", field="buckets")
    if not all(map(math.isfinite, buckets)) or any(low >= high for low, high in pairwise(buckets)):
        raise Invalid("Buckets must be finite, ascending and distinct", field="buckets")


def _check_number(field: str, number: float | None) -> None:
    if number is not None and not math.isfinite(number):
        raise Invalid(f"{field} must be a finite number", field=field)
