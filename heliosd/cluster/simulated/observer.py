"""Turns what happens to the local member of a simulated cluster into events, measurements and records.

An event of a committed entry is emitted once, also across restarts: it carries a marker, the index up to which
entries were emitted, which is stored in one transaction with the event. After a kill, entries beyond the marker are
emitted again; none of their events had reached a client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from heliosd.clock import Instant
from heliosd.cluster import custom_metrics
from heliosd.cluster.latency import HealthChanged, LatencyTracker
from heliosd.cluster.snapshots import SnapshotOutcome, SnapshotTracker
from heliosd.cluster.uptime import UptimeTracker
from heliosd.errors import RequestRefused
from heliosd.protocol.events import (
    Cause,
    Event,
    Happened,
    MetricsDefined,
    MetricValuesChanged,
    PeerChanged,
    SnapshotTaken,
    StateChanged,
    Value,
)
from heliosd.raft.log import decode_membership
from heliosd.raft.messages import Snapshot
from heliosd.raft.node import RaftNode
from heliosd.raft.roles import Role
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.observations import (
    Crashed,
    EntryApplied,
    HandedOver,
    Installed,
    MemberStarted,
    Observation,
    ProbeAnswered,
    RoundTrip,
    SoftStateChanged,
    Unanswered,
)
from heliosd.raft.storage import SnapshotSaved
from heliosd.store.changes import Change

from .emitted_marker import emitted_log, marker, snapshot_marker
from .emitted_metrics import EmittedMetrics
from .status import cause_of_failed_calls, cause_of_loss, evidence_of, role_of


class MemberObserver:
    """Observes one cluster for one node. `emit` takes the events and values, `note` the changes to store."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        node: str,
        *,
        emitted: int,
        ticks_per_second: int,
        latency: LatencyTracker,
        uptime: UptimeTracker,
        snapshots: SnapshotTracker,
        emit: Callable[[Happened | Value], None],
        note: Callable[[Sequence[Change]], None],
        now: Instant,
    ) -> None:
        self._note = note
        self._cluster = cluster
        self._node = node
        self._emitted = emitted
        self._marked = emitted
        """The marker of the last event that had one."""
        self._ticks_per_second = ticks_per_second
        self._latency = latency
        self._uptime = uptime
        self._snapshots = snapshots
        self._emit_item = emit
        self._caused: list[Event | Value] | None = None
        self._published: tuple[Role, str] = ("Follower", "")
        """This node's role and leader in the last event."""
        self._handed_over = ("", 0)
        """The last leader that handed over, and its term."""
        self._cause: Cause = "unknown"
        self._evidence: Mapping[str, float] | None = None
        self._ticked_at = now.mono
        self._ended = False
        # After a start the commit index is not known yet, but entries that were emitted before are committed.
        logs = {name: member.raft.log for name, member in cluster.members.items()}
        log = emitted_log(logs, node, emitted)
        self._members_index = max(log.snapshot.index, min(emitted, log.last_index))
        """`_members` is as of here."""
        self._members: Mapping[str, str] = log.members_at(self._members_index).all
        for peer, address in self._members.items():
            if peer != node:
                latency.add_peer(peer, address, now)
        self._metrics = EmittedMetrics(log, emitted)

    @property
    def membership(self) -> Mapping[str, str]:
        """The committed membership, as far as it was applied; after a start, as far as it was emitted and is in the
        log."""
        return self._members

    def begin(self, now: Instant) -> None:
        """Start a session."""
        self._note(self._uptime.start(role_of(self._cluster, self._node), now))

    def end(self, now: Instant) -> list[Change]:
        """End the session. Returns what to store for it; later changes of role belong to no session."""
        self._ended = True
        return self._uptime.stop("graceful_shutdown", now)

    def observe(self, observation: Observation, now: Instant) -> None:
        """Emit, measure and record one observation."""
        match observation:
            case SoftStateChanged(member=self._node, state=state):
                self._show(state.role, state.term, state.leader, now)
            case HandedOver(leader=leader, term=term):
                self._handed_over = (leader, term)
            case Crashed(member=self._node):
                self._show("Down", self._raft.term, "", now)
            case MemberStarted(member=self._node):
                self._show(self._raft.role, self._raft.term, self._raft.leader, now)
            case RoundTrip(peer=peer, kind=kind, ticks=ticks):
                self._health(self._latency.succeeded(peer, kind, ticks / self._ticks_per_second, now), now)
            case Unanswered(peer=peer, kind=kind, overtaken=overtaken):
                self._health(self._latency.failed(peer, kind, now, overtaken=overtaken), now)
            case ProbeAnswered(member=member, peer=peer, ticks=ticks):
                self._latency.matrix.add(member, peer, ticks / self._ticks_per_second, now)
            case EntryApplied(member=self._node, entry=entry, result=result):
                self._metrics.entry_applied(entry, result)
                with self._with_marker(entry.index):
                    self._entry_applied(observation, now)
            case Installed(member=self._node, snapshot=snapshot):
                changes = self._metrics.installed(snapshot)
                with self._with_marker(snapshot.index):
                    members = {**snapshot.membership, **snapshot.learners}
                    self._members_changed(members, snapshot.index, now)
                    for change in changes:
                        self._metrics_changed(change)
            case _:
                pass

    @property
    def _raft(self) -> RaftNode:
        return self._cluster.members[self._node].raft

    def _show(self, role: Role, term: int, leader: str, now: Instant) -> None:
        """Emit this node's role and leader, if they differ from the last event."""
        if (role, leader) == self._published or self._ended:
            return
        (old, known), self._published = self._published, (role, leader)
        if known not in {"", leader}:
            handed_over = self._handed_over == (known, term - 1)
            self._cause = cause_of_loss(self._cluster, self._node, known, handed_over=handed_over)
            self._evidence = self._evidence_of(known, now)
        if role == "Down" and known:  # a leader elsewhere may well go on: nothing of it is seen from here
            self._cause = "stopped" if known == self._node else "unknown"
            self._evidence = None
        self._emit(
            StateChanged(
                old_state=old,
                new_state=role,
                term=term,
                leader=leader,
                member=self._node,
                cause=self._cause,
                evidence=self._evidence,
                observed_at=now.wall,
            )
        )
        self._note(self._uptime.state_changed(old, role, term, leader, now))

    def _evidence_of(self, member: str, now: Instant) -> Mapping[str, float] | None:
        silent = self._latency.silent_seconds(member, now)
        return evidence_of(self._cluster, self._node, member, silent) or None

    def tick(self, now: Instant) -> None:
        """Once a second: find peers that no longer answer. While this node does not run it judges none."""
        passed, self._ticked_at = now.mono - self._ticked_at, now.mono
        if not self._cluster.members[self._node].running:
            self._latency.skip(passed)
            return
        for change in self._latency.check(now):
            self._health(change, now)

    # Snapshots

    def snapshot_created(
        self, snapshot: Snapshot, *, previous_index: int, seconds: float, now: Instant
    ) -> None:
        """A snapshot of this node is on disk."""
        outcome = self._snapshots.created(
            index=snapshot.index,
            term=snapshot.term,
            size=len(snapshot.data),
            duration=seconds,
            entries_compacted=snapshot.index - previous_index,
            leader_id=self._raft.leader,
            peer_count=len(snapshot.membership) - 1,
            previous_index=previous_index,
            now=now,
        )
        self._emit_snapshot(outcome)

    def snapshot_received(self, installed: Installed, *, seconds: float, now: Instant) -> None:
        """A leader's snapshot is on this node's disk and applied."""
        snapshot = installed.snapshot
        outcome = self._snapshots.received(
            index=snapshot.index,
            term=snapshot.term,
            size=len(snapshot.data),
            duration=seconds,
            from_peer=installed.sender,
            leader_id=installed.sender,
            peer_count=len(snapshot.membership) - 1,
            now=now,
        )
        self._emit_snapshot(outcome)
        self.snapshot_restored(snapshot, seconds=seconds, now=now)

    def snapshot_restored(self, snapshot: Snapshot, *, seconds: float, now: Instant) -> None:
        """This node's state was set to a snapshot."""
        size = len(snapshot.data)
        outcome = self._snapshots.restored(
            index=snapshot.index, term=snapshot.term, size=size, duration=seconds, now=now
        )
        self._emit_snapshot(outcome)

    def snapshot_failed(self, reason: str, now: Instant) -> None:
        """A snapshot of this node did not reach the disk."""
        self._emit_snapshot(self._snapshots.failed(kind="created", message=reason, now=now))

    def _emit_snapshot(self, outcome: SnapshotOutcome) -> None:
        self._note(outcome.changes)
        self._emit(SnapshotTaken(snapshot=outcome.event))

    # Emitting

    def _emit(self, item: Event | Value) -> None:
        if self._caused is not None:
            self._caused.append(item)
        else:
            self._emit_item(item if isinstance(item, MetricValuesChanged) else Happened(item))

    @contextmanager
    def _with_marker(self, index: int) -> Iterator[None]:
        """Items emitted inside were caused by the log up to `index`. Up to the marker they were emitted before and
        are dropped; beyond it the last event of them carries the new marker."""
        caused: list[Event | Value] = []
        self._caused = caused
        try:
            yield
        finally:
            self._caused = None
        if index <= self._emitted:
            return
        self._emitted = index
        events = [item for item in caused if not isinstance(item, MetricValuesChanged)]
        if events:
            self._marked = index
        for item in caused:
            if isinstance(item, MetricValuesChanged):
                self._emit_item(item)
            else:
                last = item is events[-1]
                self._emit_item(Happened(item, (marker(index),) if last else ()))

    def with_markers(self, changes: Sequence[Change]) -> list[Change]:
        """What is written for the cluster, and for a snapshot of this node the marker that belongs to it."""
        # All that was observed up to here has been emitted, an installed snapshot among it.
        own = [each for each in changes if isinstance(each, SnapshotSaved) and each.member == self._node]
        return [*changes, *[snapshot_marker(min(self._marked, each.snapshot.index)) for each in own]]

    # Entries

    def _entry_applied(self, applied: EntryApplied, now: Instant) -> None:
        if applied.entry.kind == "membership":
            self._members_changed(decode_membership(applied.entry.data).all, applied.entry.index, now)
        elif isinstance(applied.result, custom_metrics.MetricsApplied):
            self._metrics_changed(applied.result)
        else:
            assert applied.result is None or isinstance(applied.result, RequestRefused)

    def _metrics_changed(self, change: custom_metrics.MetricsApplied) -> None:
        if change.defined:
            self._emit(MetricsDefined(metrics=change.defined, reason=change.reason))
        if change.moved:
            self._emit(MetricValuesChanged(metrics=change.moved))

    def _members_changed(self, members: Mapping[str, str], index: int, now: Instant) -> None:
        if index <= self._members_index:  # applied again
            return
        self._members_index = index
        before, self._members = self._members, members
        for peer in before.keys() - members.keys() - {self._node}:
            self._latency.remove_peer(peer)
            self._emit(PeerChanged(event_type="removed", peer_id=peer, peer_address=before[peer]))
        for peer in members.keys() - before.keys() - {self._node}:
            self._latency.add_peer(peer, members[peer], now)
            self._emit(PeerChanged(event_type="added", peer_id=peer, peer_address=members[peer]))

    def _health(self, change: HealthChanged | None, now: Instant) -> None:
        if change is None:
            return
        peer, cause, evidence = change.peer_id, None, None
        if not change.healthy and peer in self._cluster.members:
            cause = cause_of_failed_calls(self._cluster, self._node, peer)
            evidence = self._evidence_of(peer, now)
        self._emit(
            PeerChanged(
                event_type="healthy" if change.healthy else "unhealthy",
                peer_id=peer,
                peer_address=self._members.get(peer, ""),
                cause=cause,
                evidence=evidence,
            )
        )
