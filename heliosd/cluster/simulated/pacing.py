"""How a simulated cluster's time follows the clock of the process."""

from __future__ import annotations

from heliosd.raft.simulation.cluster import SimulatedCluster

from .bootstrap import TICKS_PER_SECOND

GRID = 1_000
"""An idle cluster wakes on this grid of ticks, so that events close to each other cost one waking."""


class Pacing:
    """Clock times are seconds, as `trio.current_time()`; cluster times and `heartbeat`, the members', are ticks."""

    def __init__(self, cluster: SimulatedCluster, heartbeat: int) -> None:
        self._cluster = cluster
        self._heartbeat = heartbeat
        self._origin = 0.0
        """The clock's time at tick 0."""

    def begin(self, now: float) -> None:
        """The cluster goes on from its present tick."""
        self._origin = now - self._cluster.now / TICKS_PER_SECOND

    def tick(self, now: float) -> int:
        """The tick to run to. The cluster's time stops while the process is stopped or waits, for the disk or for a
        reader: otherwise the members would time out though none of them failed."""
        cluster = self._cluster
        reached = round((now - self._origin) * TICKS_PER_SECOND)
        latest = max(cluster.now, cluster.next_due()) + self._heartbeat
        if reached > latest:
            self._origin += (reached - latest) / TICKS_PER_SECOND
            reached = latest
        return max(reached, cluster.now)

    def next_turn(self, requests_due: int | None, *, busy: bool) -> float:
        """When the cluster has something to do. `busy`: a client waits for it."""
        due = self._cluster.next_due()
        if requests_due is not None:
            due = min(due, requests_due)
        if not busy:
            due = -(-due // GRID) * GRID
        return self._origin + due / TICKS_PER_SECOND
