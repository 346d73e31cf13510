"""Snapshots of the local member: each is reported once it is on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import Struct

from heliosd.clock import Instant
from heliosd.cluster.snapshots import SnapshotTracker
from heliosd.errors import NoLeader, StoreFull
from heliosd.protocol.views.snapshots import SnapshotRecord
from heliosd.raft.messages import Snapshot
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.observations import Crashed, Installed, MemberStarted, Observation

from .observer import MemberObserver


@dataclass(slots=True, eq=False)
class SnapshotRequest:
    """One client's request for a snapshot. `on_done` is called once, when `outcome` is set."""

    on_done: Callable[[], None]
    outcome: SnapshotRecord | Exception | None = None


class _Made(Struct, frozen=True):
    snapshot: Snapshot
    previous_index: int
    began: float


@dataclass(slots=True)
class Snapshotting:
    """Times are `Instant.mono` in seconds."""

    cluster: SimulatedCluster
    node: str
    tracker: SnapshotTracker
    observer: MemberObserver
    requests: list[SnapshotRequest] = field(default_factory=list)
    _made: _Made | None = None
    _recorded: SnapshotRecord | None = None
    """It is on disk; its record is not yet, and nobody was answered."""
    _installed: list[tuple[Installed, float]] = field(default_factory=list)

    def take_due(self, now: Callable[[], Instant]) -> None:
        """Make the snapshots that are due or requested."""
        for name in self.cluster.take_snapshots_due():
            if name != self.node:
                self.cluster.snapshot(name)
            elif self._made is None:  # each is reported, so one is on its way to the disk at a time
                self._make(now().mono)
        idle = self._made is None and self._recorded is None
        if self.requests and idle and not self._make(now().mono):
            running = self.cluster.members[self.node].running
            self._answer((self.tracker.latest if running else None) or NoLeader())

    def _make(self, began: float) -> bool:
        """Snapshot this node; False if nothing was applied since the last one."""
        previous_index = self.cluster.members[self.node].raft.log.snapshot.index
        snapshot = self.cluster.snapshot(self.node)
        if snapshot is not None:
            self._made = _Made(snapshot, previous_index, began)
        return snapshot is not None

    def observe(self, observation: Observation, began: float) -> None:
        """Take one observation of the step that started at `began`."""
        match observation:
            case Installed(member=self.node):
                self._installed.append((observation, began))
            case Crashed(member=self.node) | MemberStarted(member=self.node):
                self._installed.clear()
                if self._made is not None and not self.cluster.unwritten(self.node):
                    self._made = None
                    self._answer(NoLeader())
            case _:
                pass

    def written(self, now: Instant) -> None:
        """A batch of the cluster's writes is on disk. A slow disk may have taken only some of this node's."""
        stored = self.cluster.members[self.node].disk.snapshot_index
        made = self._made
        if made is not None and made.snapshot.index <= stored:
            self._made = None
            self.observer.snapshot_created(
                made.snapshot, previous_index=made.previous_index, seconds=now.mono - made.began, now=now
            )
            self._recorded = self.tracker.latest
        elif made is not None and not self.cluster.unwritten(self.node):
            # A crash lost it, and not what was to be written before it.
            self._made = None
            self._answer(NoLeader())
        waiting = []
        for installed, began in self._installed:
            if installed.snapshot.index <= stored:
                self.observer.snapshot_received(installed, seconds=now.mono - began, now=now)
            else:
                waiting.append((installed, began))
        self._installed = waiting

    def disk_answered(self, failure: StoreFull | None) -> None:
        """All that was noted before is on disk, or, after a `failure`, is not."""
        if self._recorded is not None:
            outcome, self._recorded = failure or self._recorded, None
            self._answer(outcome)

    def refused(self, failure: StoreFull, now: Instant) -> None:
        """The cluster's last writes are not on disk."""
        if self._made is not None and not self.cluster.unwritten(self.node):
            self._made = None
            self.observer.snapshot_failed(str(failure), now)
            self._answer(failure)

    def _answer(self, outcome: SnapshotRecord | Exception) -> None:
        for request in self.requests:
            request.outcome = outcome
            request.on_done()
        self.requests.clear()
