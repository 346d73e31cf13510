"""Events and values: what a backend reports to the hub.

Events are numbered and never merged. A value describes a present state: a newer one replaces an older one. Both go
through one channel, which keeps their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from heliosd.protocol.views.custom_metrics import DeletionReason, MetricView
from heliosd.protocol.views.latency import AddressKind
from heliosd.protocol.views.snapshots import SnapshotEvent
from heliosd.raft.roles import Role
from heliosd.store.changes import Change, LoggedEvent

PeerEvent = Literal["added", "removed", "healthy", "unhealthy", "promoted", "renamed"]


Cause = Literal["transfer", "stopped", "unreachable", "stepped_down", "removed", "unknown"]
"""Why a leader was lost. `transfer`: planned. `stopped`: its process is down. `unreachable`: it runs, and is cut
off. `stepped_down`: it runs, and lost its majority or was too slow. `removed`: it is no member any more."""

Evidence = Mapping[str, float | str]
"""What a `Cause` was concluded from: names with their units, and what was measured or met."""


class StateChanged(Struct, frozen=True, kw_only=True):
    """A member's Raft state or the known leader changed. `leader` "": none is known."""

    old_state: Role
    new_state: Role
    term: int
    leader: str
    member: str
    """The member whose states these are: this node; with etcd the leader that was elected or lost."""
    cause: Cause | None = None
    """Why the leader before was lost; None: the backend does not say."""
    observed_at: float | None = None
    """Unix seconds at which this node saw it; None: the backend does not say."""
    evidence: Evidence | None = None
    """What `cause` was concluded from."""
    terms_unseen: tuple[int, int] | None = None
    """The first and last term since the state change before of which no leader was seen."""
    leader_name: str = ""
    member_name: str = ""
    """With etcd: the names of `leader` and `member`."""


class PeerChanged(Struct, frozen=True, kw_only=True):
    """A peer was added or removed, or its health, role or name changed."""

    event_type: PeerEvent
    peer_id: str
    peer_address: str
    address_kind: AddressKind | None = None
    """With etcd; None: the backend has one kind only."""
    peer_name: str = ""
    """With etcd: the member's name, "" before its first start."""
    cause: Cause | None = None
    """Why an unhealthy peer does not answer; None: the backend does not say."""
    evidence: Mapping[str, float] | None = None
    """What `cause` was concluded from."""


class SnapshotTaken(Struct, frozen=True, kw_only=True):
    """A snapshot was created, received or restored."""

    snapshot: SnapshotEvent


class MetricsDefined(Struct, frozen=True, kw_only=True):
    """Metrics were registered or deleted: name -> the new metric, or None for a deleted one."""

    metrics: Mapping[str, MetricView | None]
    reason: DeletionReason | None = None
    """Why they were deleted, if no client did it."""


class MetricValuesChanged(Struct, frozen=True, kw_only=True):
    """Values of metrics changed. A value, not an event: the hub gathers these for `metrics_interval`."""

    metrics: Mapping[str, MetricView]


class Happened(Struct, frozen=True):
    """An event and the changes to store in one transaction with it: the position in the cluster's log that it
    stands for, so that after a kill no event is published twice and none is left out."""

    event: Event
    applied_marker: tuple[Change, ...] = ()


class StatusChanged(Struct, frozen=True):
    """The observed status changed apart from any event, so the newest one is to be sent at once. With etcd an event
    may be in the cluster's log before this node has observed the change."""


class StateComplete(Struct, frozen=True):
    """From here on the state has everything that was answered before this start. A status of before may lack
    some."""


Event = StateChanged | PeerChanged | SnapshotTaken | MetricsDefined
Value = MetricValuesChanged


class Provisional(Struct, frozen=True):
    """An event that is published before it is in the cluster's log, since there is no quorum: it has no number yet.
    It follows as a `LoggedEvent` when the log has it."""

    event: Event


class LogReset(Struct, frozen=True, kw_only=True):
    """The cluster's log is another one than before, or events were removed from it before they were published.

    From here on `epoch` and `seq` (the newest number; the next event has `seq + 1`) hold, and `kept` is all that
    can be replayed: contiguous, and if it is not empty it ends with `seq`.
    """

    epoch: str
    seq: int
    kept: tuple[LoggedEvent, ...] = ()
    lost: tuple[int, int] | None = None
    """If the epoch is the same: the first and last number of the events that are lost."""


class Stamped(Struct, frozen=True):
    """A numbered event: `seq` counts from 1 without a hole, `at` is Unix seconds."""

    seq: int
    at: float
    event: Event


BackendItem = Happened | Value | StatusChanged | StateComplete | LoggedEvent | Provisional | LogReset
"""What a backend reports. A `LoggedEvent` has its number and bytes from the cluster's own log; only the etcd
backend reports `LoggedEvent`, `Provisional` and `LogReset`."""
