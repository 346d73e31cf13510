"""What is to happen to a simulated cluster: a plan of random faults, drawn from a seed before the run.

So the same seed gives the same run in any process, and a schedule may be shortened (`raft_report.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

from heliosd.raft.simulation.member import SimulationOptions
from heliosd.raft.simulation.network import NetworkConditions
from heliosd.raft.state import Timing

MS = 1000
ELECTION = 100 * MS
TIMING = Timing(heartbeat=20 * MS, election=ELECTION)

Action = tuple[str, ...]
"""A name and its arguments: what `Run` does in the method `_name`."""

KINDS = {
    "write": 12,
    "burst": 2,
    "read": 3,
    "crash": 4,
    "restart": 8,
    "isolate": 4,
    "halve": 3,
    "ring": 1,
    "block": 3,
    "heal": 8,
    "pause": 2,
    "resume": 6,
    "clock": 1,
    "add": 3,
    "remove": 3,
    "transfer": 3,
    "snapshot": 3,
    "refuse": 1,
    "kill": 1,
    "loss": 2,
}

WHO = ("leader", "leader", *"abcde")

Schedule = list[tuple[int, Action]]


class DrawnSchedule:
    """The actions of a seed, drawn as far as they are read: most runs have enough events before half of them is."""

    def __init__(self, stretches: Iterator[Schedule]) -> None:
        self._stretches = stretches
        self._drawn: Schedule = []

    def __iter__(self) -> Iterator[tuple[int, Action]]:
        place = 0
        while place < len(self._drawn) or self._draw():
            yield self._drawn[place]
            place += 1

    def _draw(self) -> bool:
        stretch = next(self._stretches, [])
        self._drawn += stretch
        return bool(stretch)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `schedule`: (tick, action), in order."""

    seed: int
    names: str
    options: SimulationOptions
    disk_ticks: int
    """Mean time that a write takes."""
    eager_reads: bool
    """Whether two members that both take themselves for the leader are read from after every event."""
    schedule: Iterable[tuple[int, Action]]
    until: int | None = None
    """When the faults end, unless enough events are done before; None: with the last action."""

    @property
    def end(self) -> int:
        return max(at for at, _ in self.schedule) if self.until is None else self.until


def plan_of(seed: int, events: int = 1000) -> Plan:
    """The plan of a seed, for so many events: which faults it has, and how often, is drawn too.

    Up to 1,000 events it has one stretch, longer ones more: at the start of each all is healed, and the faults and
    their rates are others from then on.
    """
    rng = Random(seed)
    names = "abcde"[: rng.choice([1, 2, 3, 3, 3, 4, 5, 5])]
    conditions = NetworkConditions(
        latency=rng.choice([0.5, 2.0, 10.0]) * MS,
        loss=rng.choice([0.0, 0.02, 0.3]),
        repeats=rng.choice([0.0, 0.1]),
        ordered=rng.random() < 0.5,
    )
    options = SimulationOptions(
        timing=TIMING,
        conditions=conditions,
        probe_interval=1000 * MS,
        call_timeout=1000 * MS,
        snapshot_threshold=rng.choice([5, 40, 10_000]),
        snapshot_interval=10_000 * MS,
        chunk_bytes=Random(seed + 2).choice([3, 1000]),
    )
    eager_reads = rng.random() < 0.5
    first = _stretch(rng, eager_reads)
    disk_ticks = rng.choice([0, 0, 1, 10]) * MS
    stretches = _stretches(first, rng, names, eager_reads, events // 500 if events > 1000 else 1)
    return Plan(seed, names, options, disk_ticks, eager_reads, DrawnSchedule(stretches))


def _stretches(
    first: Schedule, rng: Random, names: str, eager_reads: bool, number: int
) -> Iterator[Schedule]:
    yield first
    end = first[-1][0]
    for _ in range(1, number):
        healed: Schedule = [
            (end, ("heal",)),
            (end, ("resume",)),
            *((end, ("restart", name)) for name in names),
        ]
        stretch = healed + [(end + at, action) for at, action in _stretch(rng, eager_reads)]
        yield stretch
        end = stretch[-1][0]


def _stretch(rng: Random, eager_reads: bool) -> Schedule:
    """Actions of some kinds, at rates and paces of its own."""
    weights = {kind: weight * rng.choice([0, 1, 1, 3, 10]) for kind, weight in KINDS.items()}
    if eager_reads:  # most often two members lead while leadership is transferred
        weights["transfer"] += 30
    weights["write"] += 1
    kinds = rng.choices(list(KINDS), list(weights.values()), k=400)
    pause = rng.choice([5, 20, 60]) * MS
    at, schedule = 0, []
    for kind in kinds:
        at += int(rng.expovariate(1.0) * pause)
        schedule.append((at, _action(kind, rng)))
    return schedule


def _action(kind: str, rng: Random) -> Action:
    who = rng.choice(WHO)
    match kind:
        case "halve":
            return kind, "".join(rng.sample("abcdef", rng.randrange(1, 4)))
        case "block":
            return kind, who, rng.choice("abcde")
        case "add" | "remove":
            return kind, rng.choice("bcdef")
        case "transfer":
            return kind, rng.choice(["", *"abcde"])
        case "loss":
            return kind, rng.choice(["0.0", "0.02", "0.1", "0.3"])
        case "clock":
            return kind, who, rng.choice(["0.8", "0.95", "1.0", "1.05", "1.2"])
        case "kill":
            return kind, rng.choice(["landed", "lost"])
        case "heal" | "read" | "ring" | "refuse" | "resume":
            return (kind,)
        case _:
            return kind, who
