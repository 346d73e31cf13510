"""The interface between heliosd and the cluster that it reports.

`simulated/backend.py` and `etcd/backend.py` implement `Backend`; one contract suite tests both.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import UNSET, Struct, UnsetType

from heliosd.protocol.views.latency import AddressKind
from heliosd.protocol.views.simulation import FaultChange, SimulationReport
from heliosd.protocol.views.snapshots import SnapshotRecord
from heliosd.protocol.views.status import ClusterStatus

from .custom_metrics import MetricSet
from .idempotency import WriteKey
from .latency import LatencyTracker
from .metric_commands import MetricCommand
from .permits import Permit
from .snapshots import SnapshotTracker
from .subscribers import ItemQueue
from .uptime import UptimeTracker


class Peer(Struct, frozen=True):
    """A member of the cluster: its id and its `HOST:PORT`."""

    id: str
    address: str
    address_kind: AddressKind | UnsetType = UNSET
    """With etcd, in answers."""


class Committed(Struct, frozen=True):
    """A write's index and term in the replicated log. It is on the disks of a majority and applied on this node."""

    index: int
    term: int


class Simulation(Protocol):
    """The faults of a simulated cluster. They last until they are changed, or the daemon ends."""

    def report(self) -> SimulationReport:
        """The faults in force, and every member as it is."""
        ...

    async def change(self, change: FaultChange) -> SimulationReport:
        """Replace the faults that `change` names, all at one moment. Raises `Invalid`: nothing was changed."""
        ...


class Permits(Protocol):
    """Permits to stop a member, of which at most one is out. Raises as `Backend` does."""

    async def current(self) -> Permit | None:
        """The permit that is out."""
        ...

    async def grant(self, member: str, user: str, seconds: float) -> Permit:
        """Let `user` stop this member (an id or a name) for so long. `NotFound` for no member; `Conflict`, which
        says why, if a permit is out or no quorum would be left, by what the members answer now."""
        ...

    async def renew(self, permit_id: str, seconds: float) -> Permit:
        """Let it end in `seconds` from now. `NotFound` if it is not out."""
        ...

    async def end(self, permit_id: str) -> Permit:
        """Take it back and return it. `NotFound` if it is not out."""
        ...


class Backend(Protocol):
    """One cluster, seen from this node.

    A write returns once it is committed, durable, and applied here, so a following read shows it. It raises
    `NoLeader` if nothing was written, `OutcomeUnknown` if that is not known, and `Invalid`, `NotFound` or
    `Conflict` if the cluster refused it, `StoreFull` if the disk did. It waits 4.5 s at most, less for a leader; a
    caller may cancel it before.
    """

    @property
    def metrics(self) -> MetricSet:
        """The custom metrics as applied on this node. Do not change them."""
        ...

    @property
    def latency(self) -> LatencyTracker:
        """Latency and health of every peer, as measured from this node."""
        ...

    @property
    def uptime(self) -> UptimeTracker: ...

    @property
    def permits(self) -> Permits: ...

    @property
    def snapshots(self) -> SnapshotTracker: ...

    def status(self) -> ClusterStatus:
        """The cluster as this node sees it now."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the state here has everything that was answered before this start. It stays so once it is."""
        ...

    def not_ready(self) -> str | None:
        """Why a read here could miss an answered write ("no leader", …); None if it cannot."""
        ...

    @property
    def simulation(self) -> Simulation | None:
        """None: the cluster is a real one."""
        ...

    def warnings(self) -> list[str]:
        """What an operator should know although this node is ready."""
        ...

    async def propose(self, command: MetricCommand, key: WriteKey | None = None) -> Committed:
        """Write one change of the custom metrics. With a key it is done once, however often it is proposed with
        that key and on whichever node, and each time answered alike: `KeyReused` if the key came with another
        request."""
        ...

    async def add_peer(self, peer: Peer, *, again: bool = False) -> Peer:
        """Add a member and return it: with etcd, the id is etcd's. `Conflict` if the id or the address is taken.
        `again`: an earlier attempt may have done it, so a member that is as asked for is returned as well."""
        ...

    async def remove_peer(self, peer_id: str) -> Peer:
        """Remove a member and return it. `NotFound` if unknown, `Conflict` for this node itself."""
        ...

    async def transfer_leadership(self, target: str | None) -> str:
        """Transfer leadership to `target` (None: the most advanced other voter); returns the new leader's id."""
        ...

    async def take_snapshot(self) -> SnapshotRecord:
        """Snapshot this node now; returns the newest snapshot, also if nothing has changed since. One that was
        asked for is taken also if the caller gives up."""
        ...

    async def reset_uptime(self) -> None: ...

    async def reset_snapshots(self) -> None:
        """Forget counters and history; what is on disk stays."""
        ...

    async def share_revocation(self, jti: str, expires_at: float) -> None:
        """Make the other daemons of this cluster refuse this token until `expires_at` (Unix seconds). Returns
        once they can know, or soon after the first attempt; it is repeated until it succeeds."""
        ...

    def events(self) -> AbstractAsyncContextManager[ItemQueue]:
        """All items from now on, in order. A full queue makes the backend wait; nothing is dropped."""
        ...
