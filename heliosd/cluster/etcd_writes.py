"""Commands for the custom metrics as transactions: many commands in one, each answered by itself.

A value compares that the metric is the one it was computed from. What defines metrics compares the head of the
log as well, since it logs its event in the same transaction: so the names are those that were seen. A refusal is
compared too, before it is given: a metric that another node has just registered is not told as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from ..errors import RequestRefused
from ..events import MetricsDefined
from .custom_metrics import MetricSet
from .etcd_codec import KeyValue, TxnResult
from .etcd_keys import Layout
from .etcd_log import MAX_OPS, Item, SeenHead, log_ops, read_head
from .etcd_requests import Compare, Delete, Op, delete, get, mod_is, put
from .metric_commands import DeleteMetric, MetricCommand, RegisterMetric, ResetMetrics, UpdateMetric

MAX_BATCH_BYTES = 512 * 1024
"""Of values in one transaction; etcd refuses requests over 1.5 MiB (`--max-request-bytes`)."""


@dataclass(frozen=True, slots=True)
class SeenMetrics:
    """The metrics and the log's head as they were read, or as they are believed to be. To be read only."""

    head: SeenHead = field(default_factory=SeenHead)
    metrics: MetricSet = field(default_factory=MetricSet)
    revisions: Mapping[str, int] = field(default_factory=dict)
    """Name -> mod_revision of its key."""
    revision: int = 0
    """Whoever has two of these composes on the one with the higher revision: it is the better guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One transaction that carries out the first `len(answers)` of the commands."""

    compares: tuple[Compare, ...]
    then: tuple[Op, ...]
    otherwise: tuple[Op, ...]
    answers: tuple[RequestRefused | None, ...]
    """What is to be answered to each command once the transaction has succeeded; None: committed."""
    seen: SeenMetrics
    after: SeenMetrics
    """As `seen`, once it has succeeded; its revisions are filled in by `settle`."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The transaction has succeeded: the batch's `answers` hold. `seen` is good for the next batch."""

    seen: SeenMetrics
    revision: int


@dataclass(frozen=True, slots=True)
class Outrun:
    """Nothing was written: others came first. Compose the same commands again on `seen`."""

    seen: SeenMetrics


def compose(
    layout: Layout,
    commands: Sequence[MetricCommand],
    seen: SeenMetrics,
    *,
    lease: str,
    now_wall: float,
    max_events: int,
) -> Batch:
    """Put as many of the commands, in their order, into one transaction as go into one; at least the first.

    Each has passed `check_command`. The log has begun (`Mirror.needs_birth` is false), else `ValueError`.
    """
    raise NotImplementedError


def settle(layout: Layout, batch: Batch, result: TxnResult) -> Settled | Outrun:
    """What came of it. An unknown outcome is told to those who asked, and the batch is not composed again."""
    raise NotImplementedError
