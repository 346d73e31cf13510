"""The members of a simulated cluster at their first start, and their options from the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from heliosd.config.model import SimulatedConfig
from heliosd.errors import StoreError
from heliosd.raft.messages import Snapshot
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.member import SimulationOptions
from heliosd.raft.simulation.network import NetworkConditions
from heliosd.raft.state import Timing
from heliosd.raft.storage import HardState, MemberState, SnapshotSaved
from heliosd.store.changes import Change, Saved

TICKS_PER_SECOND = 1_000_000
"""Network delays are fractions of a millisecond, so a tick is a microsecond."""
TICKS_PER_MS = TICKS_PER_SECOND / 1000
FIRST_TERM = 1
FIRST_INDEX = 1
"""The log starts after a snapshot at this index with the first membership, which an empty member needs."""


def first_members(addresses: Mapping[str, str]) -> tuple[dict[str, MemberState], list[Change]]:
    """The states of the members at the very first start, by id, and the changes that store them."""
    snapshot = Snapshot(FIRST_INDEX, FIRST_TERM, dict(addresses))
    states = {member: MemberState(term=FIRST_TERM, snapshot=snapshot) for member in addresses}
    changes: list[Change] = []
    for member in addresses:
        changes += [HardState(member, FIRST_TERM, ""), SnapshotSaved(member, snapshot, keeps_log=False)]
    return states, changes


def load_members(
    saved: Saved, node: str, addresses: Mapping[str, str]
) -> tuple[Mapping[str, MemberState], list[Change]]:
    """The stored members, or the first ones and what stores them. Raises `StoreError` if `node` is not stored."""
    if not saved.members:
        return first_members(addresses)
    if node not in saved.members:
        others = ", ".join(sorted(saved.members))
        raise StoreError(f"the data directory is that of another node ({others}), not of {node}")
    return saved.members, []


def first_timeout(cluster: SimulatedCluster) -> int:
    """The tick at which the first of the members would stand for election.

    At a start of the daemon all members start together, so none of them leads, and nobody waits for a leader: the
    time until then need not pass for anybody else.
    """
    due = [member.raft.deadline for member in cluster.members.values()]
    return min((tick for tick in due if tick is not None), default=cluster.now)


def options_of(config: SimulatedConfig) -> SimulationOptions:
    """The configured options, in ticks."""

    def ticks(seconds: float) -> int:
        return max(1, round(seconds * TICKS_PER_SECOND))

    return SimulationOptions(
        timing=Timing(ticks(config.heartbeat_interval), ticks(config.election_timeout)),
        conditions=NetworkConditions(latency=config.latency_ms * TICKS_PER_SECOND / 1000, loss=config.loss),
        probe_interval=ticks(1.0),
        call_timeout=ticks(1.0),
        snapshot_threshold=config.snapshot_threshold,
        snapshot_interval=ticks(config.snapshot_interval),
    )
