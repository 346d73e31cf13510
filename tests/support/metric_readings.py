"""What `/metrics` shows of a node whose trackers the test fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from heliosd.alerts.counters import AlertCounters
from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.latency import LatencyTracker
from heliosd.cluster.metric_commands import MetricCommand
from heliosd.cluster.snapshots import SnapshotTracker
from heliosd.cluster.uptime import UptimeTracker
from heliosd.hub.counters import HubCounters
from heliosd.protocol.views.status import ClusterStatus, Indices, LeaderView, NodeView, PeerState, PeerView
from heliosd.store.changes import Saved
from heliosd.web.rest.openmetrics import Format
from heliosd.web.rest.prometheus import parts

START = Instant(1_700_000_000.0, 100.0)
LATER = Instant(1_700_000_060.0, 160.0)


def started() -> UptimeTracker:
    tracker = UptimeTracker("node-1", Saved())
    tracker.start("Follower", START)
    return tracker


@dataclass
class Readings:
    """The part of a backend that /metrics reads."""

    silent_learners: frozenset[str] = frozenset()
    """Peers without a vote that have not been started."""
    node: NodeView = NodeView("node-1", "Leader", 5)  # noqa: RUF009 (frozen)

    metrics: MetricSet = field(default_factory=MetricSet)
    latency: LatencyTracker = field(default_factory=LatencyTracker)
    uptime: UptimeTracker = field(default_factory=started)
    snapshots: SnapshotTracker = field(
        default_factory=lambda: SnapshotTracker("node-1", Saved(), interval=300.0, threshold=10_000)
    )

    def status(self) -> ClusterStatus:
        """Of the leader node-1."""
        peers = tuple(
            PeerView(
                id=peer,
                address="",
                latency=self.latency.peer_latency(peer, LATER),
                state="Unknown" if peer in self.silent_learners else "Follower",
                voter=peer not in self.silent_learners,
            )
            for peer in self.latency.report(LATER).peers
        )
        return ClusterStatus(
            node=self.node,
            leader=LeaderView("node-1", "", is_leader=True),
            indices=Indices(1, 5, 1, 1),
            peers=peers,
            peer_states=tuple(
                PeerState(peer.id, "", "Unknown" if peer.id in self.silent_learners else "Follower")
                for peer in peers
            ),
            cluster_health=self.latency.cluster_health(LATER),
            observed_by="node-1",
            observed_at=LATER.wall,
            stale=False,
        )

    def take_snapshot(self) -> None:
        """Of 500 bytes, at index 9, at the start."""
        self.snapshots.created(
            index=9,
            term=2,
            size=500,
            duration=0.5,
            entries_compacted=9,
            leader_id="",
            peer_count=1,
            previous_index=0,
            now=START,
        )

    def text(self, counters: HubCounters | None = None, form: Format = Format.TEXT) -> str:
        page = parts(
            backend=cast(Backend, self),
            hub_counters=counters or HubCounters(),
            ws_clients=3,
            sse_clients=2,
            queue_depth=7,
            alerts=AlertCounters(),
            events_stored=True,
            tasks=20,
            now=LATER,
            form=form,
        )
        return b"".join(page).decode()

    def custom(self, *commands: MetricCommand) -> str:
        for command in commands:
            self.metrics.apply(command)
        return self.text()
