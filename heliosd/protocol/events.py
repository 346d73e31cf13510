"""The words: everything that heliosd can tell.

Events happened once, are numbered, and are never merged. Values describe how things stand: a newer one makes
an older one worthless. Both travel from the backend to the hub through one channel, so their order is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.protocol.views.snapshots import SnapshotEvent
from heliosd.raft.roles import Role
from heliosd.store.changes import Change, LoggedEvent

PeerEvent = Literal["added", "removed", "healthy", "unhealthy", "promoted", "renamed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """A member's Raft state or the known leader changed. `leader` "" = none is known."""

    old_state: Role
    new_state: Role
    term: int
    leader: str
    member: str
    """Whose states these are: this node; with etcd the member that won or was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChanged:
    """A peer came, went, or its health changed."""

    event_type: PeerEvent
    peer_id: str
    peer_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotTaken:
    """A snapshot was created, received or restored."""

    snapshot: SnapshotEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsDefined:
    """Metrics were registered or deleted: name -> the new metric, or None for a deleted one."""

    metrics: Mapping[str, MetricView | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValuesChanged:
    """Values of metrics changed. A value, not an event: the hub gathers these for `metrics_interval`."""

    metrics: Mapping[str, MetricView]


@dataclass(frozen=True, slots=True)
class Happened:
    """An event with what must be stored in one transaction with it: how far the backend has told its cluster's
    log, so that after a kill nothing is told twice and nothing is left out."""

    event: Event
    applied_marker: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """How the cluster stands is seen otherwise than before, apart from any event: the newest status is worth
    telling at once. With etcd an event may be in the cluster's log before this node has seen for itself."""


Event = StateChanged | PeerChanged | SnapshotTaken | MetricsDefined
Value = MetricValuesChanged


@dataclass(frozen=True, slots=True)
class Provisional:
    """An event told before it is in the cluster's own log, for want of a quorum: it has no number yet. It comes
    once more, as a `LoggedEvent`, when the log has it."""

    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReset:
    """The cluster's log is not the one that was told so far, or some of it is gone before it could be told.

    From here on `epoch` and `seq` (the newest number; the next event bears `seq + 1`) hold, and `kept` is all
    that can still be replayed: contiguous, and where it is not empty it ends with `seq`.
    """

    epoch: str
    seq: int
    kept: tuple[LoggedEvent, ...] = ()
    lost: tuple[int, int] | None = None
    """Where the epoch is the one that was told: the first and last number that nobody will hear any more."""


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event in its place: `seq` counts from 1 without a hole, `at` is Unix seconds."""

    seq: int
    at: float
    event: Event


BackendItem = Happened | Value | StatusChanged | LoggedEvent | Provisional | LogReset
"""What a backend tells the hub. A `LoggedEvent` has its number and its bytes from the cluster's own log; only the
backend of a real cluster tells those, and what is renumbered or provisional."""
