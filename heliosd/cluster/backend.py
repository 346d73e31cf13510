"""The seam between heliosd and the cluster that it reports: what every backend offers, and nothing more.

`simulated.py` and `etcd.py` implement `Backend`; one contract suite runs over both.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from heliosd.protocol.views.snapshots import SnapshotRecord
from heliosd.protocol.views.status import ClusterStatus

from .custom_metrics import MetricSet
from .latency import LatencyTracker
from .metric_commands import MetricCommand
from .snapshots import SnapshotTracker
from .subscribers import ItemQueue
from .uptime import UptimeTracker


@dataclass(frozen=True, slots=True)
class Peer:
    """A member of the cluster: its id and its `HOST:PORT`."""

    id: str
    address: str


@dataclass(frozen=True, slots=True)
class Committed:
    """A write's place in the replicated log. It is on the disks of a majority and applied on this node."""

    index: int
    term: int


class Backend(Protocol):
    """One cluster, seen from this node.

    Every write returns only once it is committed, durable, and applied here, so that a read that follows shows
    it. It raises `NoLeader` if nothing was written, `OutcomeUnknown` if that cannot be known, and `Invalid`,
    `NotFound` or `Conflict` if the cluster refused it. Deadlines are the caller's.
    """

    @property
    def metrics(self) -> MetricSet:
        """The custom metrics as applied on this node. To be read only."""
        ...

    @property
    def latency(self) -> LatencyTracker:
        """Latency and health of every peer, as measured from this node."""
        ...

    @property
    def uptime(self) -> UptimeTracker: ...

    @property
    def snapshots(self) -> SnapshotTracker: ...

    def status(self) -> ClusterStatus:
        """How the cluster stands as this node sees it now. Never waits."""
        ...

    def not_ready(self) -> str | None:
        """Why a read here could miss an answered write ("no leader", …); None when it cannot."""
        ...

    async def propose(self, command: MetricCommand) -> Committed:
        """Write one change of the custom metrics."""
        ...

    async def add_peer(self, peer: Peer) -> Peer:
        """Add a member and return it as it stands then: a real cluster gives ids of its own. `Conflict` if the id
        or the address is taken."""
        ...

    async def remove_peer(self, peer_id: str) -> Peer:
        """Remove a member and return it. `NotFound` if there is none, `Conflict` for this node itself."""
        ...

    async def transfer_leadership(self, target: str | None) -> str:
        """Hand leadership to `target` (None: the most advanced other member); returns the new leader's id."""
        ...

    async def take_snapshot(self) -> SnapshotRecord:
        """Snapshot this node now; returns the newest snapshot, also when nothing had changed since."""
        ...

    async def reset_uptime(self) -> None: ...

    async def reset_snapshots(self) -> None:
        """Forget the counters and the history; the snapshot itself stays."""
        ...

    async def share_revocation(self, jti: str, expires_at: float) -> None:
        """Let the other daemons of this cluster know that this token does not hold, until `expires_at` (Unix
        seconds). Returns once they can, or soon after it was tried: it is tried until it succeeds."""
        ...

    def events(self) -> AbstractAsyncContextManager[ItemQueue]:
        """All that happens from here on, in order. A full queue makes the backend wait: nothing is dropped."""
        ...
