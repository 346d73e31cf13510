"""The faults of a simulated cluster: which ones are in force, and how they change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from msgspec import UNSET, Struct, field, structs
from msgspec.structs import replace

from heliosd.errors import Invalid
from heliosd.protocol.views.simulation import FaultChange, SimulatedNode, SimulationReport
from heliosd.raft.simulation.cluster import SimulatedCluster

from .bootstrap import TICKS_PER_MS
from .status import role_of

MAX_LATENCY_MS = 60_000.0
"""Of the network and of a disk."""
MAX_OFFSET_MS = 24 * 3600 * 1000.0
CLOCK_RATES = (0.1, 10.0)


class FaultSettings(Struct, frozen=True, kw_only=True):
    """The faults in force; fields as in `SimulationReport`."""

    latency_ms: float
    loss: float
    partitions: tuple[tuple[str, ...], ...] = ()
    crashed: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    disk_latency_ms: Mapping[str, float] = field(default_factory=dict)
    clock_rate: Mapping[str, float] = field(default_factory=dict)
    clock_offset_ms: Mapping[str, float] = field(default_factory=dict)

    def changed(self, change: FaultChange, members: Collection[str]) -> FaultSettings:
        """With what `change` names. Raises `Invalid` with the field that is wrong."""
        named = {name: value for name, value in structs.asdict(change).items() if value is not UNSET}
        new = replace(self, **named)
        _check_ids("partitions", [member for group in new.partitions for member in group], members)
        if not all(new.partitions):
            raise Invalid("A group has at least one member", field="partitions")
        _check_ids("crashed", new.crashed, members)
        _check_ids("paused", new.paused, members)
        if both := set(new.crashed) & set(new.paused):
            where = "paused" if "paused" in named else "crashed"
            raise Invalid(f"{min(both)} cannot be both crashed and paused", field=where)
        _check_range("loss", new.loss, 0.0, 1.0)
        _check_range("latency_ms", new.latency_ms, 0.0, MAX_LATENCY_MS)
        _check_each("disk_latency_ms", new.disk_latency_ms, members, 0.0, MAX_LATENCY_MS)
        _check_each("clock_rate", new.clock_rate, members, *CLOCK_RATES)
        _check_each("clock_offset_ms", new.clock_offset_ms, members, 0.0, MAX_OFFSET_MS)
        return new

    def named(self) -> set[str]:
        """All members that have a fault of their own."""
        groups = (*self.partitions, self.crashed, self.paused)
        values = (self.disk_latency_ms, self.clock_rate, self.clock_offset_ms)
        return {member for members in (*groups, *values) for member in members}

    def without(self, gone: str) -> FaultSettings:
        """Without a member that does not exist any more."""

        def kept(ids: Iterable[str]) -> tuple[str, ...]:
            return tuple(each for each in ids if each != gone)

        def others(values: Mapping[str, float]) -> dict[str, float]:
            return {each: value for each, value in values.items() if each != gone}

        return replace(
            self,
            partitions=tuple(group for group in map(kept, self.partitions) if group),
            crashed=kept(self.crashed),
            paused=kept(self.paused),
            disk_latency_ms=others(self.disk_latency_ms),
            clock_rate=others(self.clock_rate),
            clock_offset_ms=others(self.clock_offset_ms),
        )


def _check_ids(field_name: str, ids: Iterable[str], members: Collection[str]) -> None:
    for member, times in Counter(ids).items():
        _check_known(field_name, member, members)
        if times > 1:
            raise Invalid(f"{member} is named twice", field=field_name)


def _check_known(field_name: str, member: str, members: Collection[str]) -> None:
    if member not in members:
        raise Invalid(f"Unknown member: {member[:64]}", field=field_name)


def _check_each(
    field_name: str, values: Mapping[str, float], members: Collection[str], low: float, high: float
) -> None:
    for member, number in values.items():
        _check_known(field_name, member, members)
        _check_range(field_name, number, low, high)


def _check_range(field_name: str, number: float, low: float, high: float) -> None:
    if not low <= number <= high:
        raise Invalid(f"{field_name} must be from {low:g} to {high:g}", field=field_name)


class FaultInjector:
    """Holds the settings, and applies them to the cluster. A batch must not be in flight while they change."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        conditions = cluster.net.conditions
        self.settings = FaultSettings(latency_ms=conditions.latency / TICKS_PER_MS, loss=conditions.loss)

    def must_wait(self, change: FaultChange) -> bool:
        """Whether a member that is to restart has writes that its disk has not taken yet."""
        still = () if change.crashed is UNSET else change.crashed
        return change.crashed is not UNSET and any(
            self._cluster.unwritten(member) for member in self._new_in(self.settings.crashed, still)
        )

    def change(self, change: FaultChange) -> None:
        """Replace what `change` names. Raises `Invalid`, and then changes nothing."""
        for gone in self.settings.named() - self._cluster.members.keys():
            self.forget(gone)  # since the last observations were taken
        old = self.settings
        new = self.settings = old.changed(change, self._cluster.members)
        cluster = self._cluster
        self._hold_by_name()
        latency = new.latency_ms * TICKS_PER_MS
        if (latency, new.loss) != (cluster.net.conditions.latency, cluster.net.conditions.loss):
            conditions = replace(cluster.net.conditions, latency=latency, loss=new.loss)
            cluster.net.change(conditions, cluster.now)
        for member in cluster.members:
            if _clock(new, member) != _clock(old, member):
                rate, offset = _clock(new, member)
                cluster.faults.set_clock(member, rate=rate, offset=offset)
        for member in self._new_in(new.crashed, old.crashed):
            cluster.crash(member, keep_terms=True)
        for member in self._new_in(old.paused, new.paused):
            cluster.faults.resume(member)
        for member in self._new_in(old.crashed, new.crashed):
            cluster.restart(member)
        for member in self._new_in(new.paused, old.paused):
            cluster.faults.pause(member)

    def _new_in(self, ids: Iterable[str], before: Collection[str]) -> Iterator[str]:
        """Those that exist when it is their turn: one member that goes on may commit the removal of another."""
        return (member for member in ids if member not in before and member in self._cluster.members)

    def forget(self, member: str) -> None:
        """A member does not exist any more: nor do its faults."""
        self.settings = self.settings.without(member)
        self._hold_by_name()

    def _hold_by_name(self) -> None:
        """Give the cluster what it holds by names of members, whether or not they exist: a later member of the same
        name would have it too."""
        self._cluster.net.partition(self.settings.partitions)
        self._cluster.faults.disk_latency = {
            member: round(ms * TICKS_PER_MS) for member, ms in self.settings.disk_latency_ms.items() if ms
        }
        self._cluster.writes.hasten(self._cluster.now, self._cluster.faults.disk_latency)

    def report(self) -> SimulationReport:
        """As `GET /api/cluster/simulation` shows it."""
        settings = self.settings
        return SimulationReport(
            partitions=settings.partitions,
            crashed=settings.crashed,
            loss=settings.loss,
            latency_ms=settings.latency_ms,
            paused=settings.paused,
            disk_latency_ms=settings.disk_latency_ms,
            clock_rate=settings.clock_rate,
            clock_offset_ms=settings.clock_offset_ms,
            nodes=tuple(self._node(member) for member in sorted(self._cluster.members)),
        )

    def _node(self, name: str) -> SimulatedNode:
        member = self._cluster.members[name]
        raft = member.raft
        return SimulatedNode(
            id=name,
            alive=member.alive,
            state=role_of(self._cluster, name),
            term=raft.term,
            leader=raft.leader if member.alive else "",
            commit_index=raft.commit,
            last_index=raft.log.last_index,
        )


def _clock(settings: FaultSettings, member: str) -> tuple[float, int]:
    offset = settings.clock_offset_ms.get(member, 0.0)
    return settings.clock_rate.get(member, 1.0), round(offset * TICKS_PER_MS)
