"""What can be asked of the custom metrics: commands of the replicated log, and the rules they keep.

A command carries the proposer's wall time, so that every member that applies it comes to the same state.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

MetricType = Literal["counter", "gauge", "histogram"]


class RegisterMetric(Struct, frozen=True, kw_only=True, tag="register"):
    """Make a metric. `buckets` are a histogram's upper bounds; None stands for `DEFAULT_BUCKETS`."""

    name: str
    type: MetricType
    help: str = ""
    labels: dict[str, str] = {}
    buckets: tuple[float, ...] | None = None
    at: float
    """Unix seconds."""


class UpdateMetric(Struct, frozen=True, kw_only=True, tag="update"):
    """`value` sets a gauge or is observed by a histogram; `delta` is added to a counter (None = 1)."""

    name: str
    value: float | None = None
    delta: float | None = None
    at: float


class DeleteMetric(Struct, frozen=True, kw_only=True, tag="delete"):
    name: str
    at: float


class ResetMetrics(Struct, frozen=True, kw_only=True, tag="reset"):
    """Delete all metrics."""

    at: float


MetricCommand = RegisterMetric | UpdateMetric | DeleteMetric | ResetMetrics

_decoder: msgspec.json.Decoder[MetricCommand] = msgspec.json.Decoder(MetricCommand)


def encode_command(command: MetricCommand) -> bytes:
    return msgspec.json.encode(command)


def decode_command(data: bytes) -> MetricCommand:
    """The inverse of `encode_command`. Raises `msgspec.DecodeError` on anything else."""
    return _decoder.decode(data)


def check_command(command: MetricCommand) -> None:
    """Raise `Invalid` with its field if the command can never succeed, whatever metrics there are."""
    raise NotImplementedError
