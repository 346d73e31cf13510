"""How a simulated cluster's time follows the clock of the process."""

from __future__ import annotations

from heliosd.clock import next_beat
from heliosd.raft.simulation.cluster import SimulatedCluster

from .bootstrap import TICKS_PER_SECOND

GRID = 1_000
"""An idle cluster wakes on this grid of ticks, so that events close to each other cost one waking."""


QUIET_SECONDS = 0.25
"""While nothing happens but heartbeats and probes, the cluster is run this often, each time up to the present."""
QUIET_LATENCY = 20
"""So many times the latency, or more, fits into an election timeout: then no late heartbeat causes an election."""
LONGEST_WAIT = TICKS_PER_SECOND
"""Also while no member runs: records are to be stored, and a heal has little time to make up for."""


def is_quiet(cluster: SimulatedCluster) -> bool:
    """Whether nothing can happen by itself but heartbeats, probes and snapshots: there are no faults, no learner is
    to be promoted, and all members follow one leader with equal logs, all committed."""
    net, timing = cluster.net, cluster.options.timing
    root = cluster.members[cluster.root].raft
    if (
        net.disturbed
        or net.conditions.latency * QUIET_LATENCY > timing.election
        or cluster.faults.disk_latency
        or root.log.members.learners
    ):
        return False
    return bool(root.leader) and all(
        member.running
        and (member.clock is None or not member.clock.set_wrong)
        and member.raft.soft_state[1:] == root.soft_state[1:]
        and not member.raft.transfer_target
        and member.raft.commit == member.raft.log.last_index == root.commit
        for member in cluster.members.values()
    )


class Pacing:
    """Clock times are seconds, as `trio.current_time()`; cluster times and `heartbeat`, the members', are ticks."""

    def __init__(self, cluster: SimulatedCluster, heartbeat: int) -> None:
        self._cluster = cluster
        self._heartbeat = heartbeat
        self._planned = 0
        self._origin = 0.0
        """The clock's time at tick 0."""

    def begin(self, now: float) -> None:
        """The cluster goes on from its present tick."""
        self._origin = now - self._cluster.now / TICKS_PER_SECOND

    def run(self, now: float) -> None:
        """Let the cluster catch up with the clock, but for no more than a heartbeat once there is something to
        write: answers wait for the disk, and for want of them a leader would step down."""
        cluster, tick = self._cluster, self.tick(now)
        while True:
            cluster.run_until(min(tick, cluster.now + self._heartbeat))
            if cluster.now >= tick or cluster.writes.any_due(cluster.now):
                return

    def tick(self, now: float) -> int:
        """The tick to run to. The cluster's time stops while the process is stopped or waits, for the disk or for a
        reader: otherwise the members would time out though none of them failed."""
        cluster = self._cluster
        reached = self._tick_of(now)
        latest = max(cluster.now, cluster.next_due(), self._planned) + self._heartbeat
        if reached > latest:
            self._origin += (reached - latest) / TICKS_PER_SECOND
            reached = latest
        return max(reached, cluster.now)

    def next_turn(self, now: float, requests_due: int | None, *, busy: bool) -> float:
        """When the cluster has something to do, a second from now at the latest. `busy`: a client waits for it."""
        due = min(self._cluster.next_due(), self._tick_of(now) + LONGEST_WAIT)
        if requests_due is not None:
            due = min(due, requests_due)
        if not busy:
            if is_quiet(self._cluster):
                due = max(due, self._tick_of(next_beat(now, QUIET_SECONDS)))
            due = -(-due // GRID) * GRID
        self._planned = due
        return self._origin + due / TICKS_PER_SECOND

    def _tick_of(self, time: float) -> int:
        return round((time - self._origin) * TICKS_PER_SECOND)
