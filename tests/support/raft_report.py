"""Runs a seed of random faults, and reports a failure so that another process replays it.

    python -m tests.support.raft_report SEED [--events N] [--keep 0,3,…] [--mutant NAME] [--trace FILE]

`--keep`: only these actions of the seed's schedule. `--mutant`: with this fault of `raft_mutants.py` planted.
`--trace`: the run is also written as events of etcd's TLA+ trace specification, and held against its invariants.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .raft_chaos import Run
from .raft_checker import Broken
from .raft_plan import Plan, plan_of
from .raft_trace_checker import TraceChecker

LAST = 50
TRIES = 400
"""Runs that shrinking may take."""


@dataclass(frozen=True)
class Failure:
    """One run that breaks an invariant. `kept`: the places of its actions in the seed's schedule."""

    seed: int
    events: int
    kept: tuple[int, ...]
    invariant: str
    witness: str
    trace: int
    """A checksum of the run up to the failure: the same in every process."""
    schedule: tuple[str, ...]
    last: tuple[str, ...]
    nodes: tuple[str, ...]

    def command(self, mutant: str = "") -> str:
        planted = f" --mutant '{mutant}'" if mutant else ""
        kept = ",".join(map(str, self.kept)) or "none"
        return (
            f"python -m tests.support.raft_report {self.seed} --events {self.events} --keep {kept}{planted}"
        )

    def report(self, mutant: str = "") -> str:
        return "\n".join(
            [
                f"broken: {self.invariant}",
                f"witness: {self.witness}",
                f"seed {self.seed}, trace {self.trace:08x}; replay: {self.command(mutant)}",
                f"schedule ({len(self.schedule)} actions):",
                *self.schedule,
                f"last {len(self.last)} events:",
                *self.last,
                "nodes:",
                *self.nodes,
            ]
        )


def failure_of(
    seed: int, *, events: int = 1000, kept: Collection[int] | None = None, without: Collection[str] = ()
) -> Failure | None:
    """Run a seed; None if nothing is broken. An error of the members' own checks counts as broken, too."""
    plan, places = _kept(seed, events, kept)
    try:
        Run(plan, events, without).run()
    except Exception:  # a planted fault may raise anything
        return _recorded(plan, places, events, without)
    return None


def _recorded(plan: Plan, places: tuple[int, ...], events: int, without: Collection[str]) -> Failure:
    """The failure of a run, which is run once more and written down."""
    last: deque[str] = deque(maxlen=LAST)
    run = Run(plan, events, without, last)
    try:
        run.run()
    except Exception as error:
        invariant = error.invariant if isinstance(error, Broken) else type(error).__name__
        witness = error.witness if isinstance(error, Broken) else str(error)
        done = [
            f"  {at / 1000:.0f} ms: {' '.join(action)}"
            for at, action in plan.schedule
            if at <= run.cluster.now
        ]
        ran = places[: len(done)]
        return Failure(
            plan.seed, events, ran, invariant, witness, run.trace, tuple(done), tuple(last), run.table()
        )
    raise AssertionError(f"seed {plan.seed} fails in one run and not in the next")


def traced(seed: int, file: Path, *, events: int, kept: Collection[int] | None = None) -> int:
    """Write a seed's run as a trace. Returns how many events; raises `TraceBroken`."""
    with file.open("w") as opened:
        Run(_kept(seed, events, kept)[0], events, trace_file=opened).run()
    with file.open() as opened:
        return TraceChecker().check(opened)


def _kept(seed: int, events: int, kept: Collection[int] | None) -> tuple[Plan, tuple[int, ...]]:
    """The plan of a seed with these of its actions, by their places."""
    plan = plan_of(seed, events)
    schedule = tuple(plan.schedule)
    places = tuple(range(len(schedule)) if kept is None else sorted(kept))
    return replace(plan, schedule=tuple(schedule[place] for place in places), until=plan.end), places


def shrunk(failure: Failure) -> Failure:
    """The same invariant, broken by as few actions of the schedule as are found in `TRIES` runs."""
    tries = 0
    size = max(1, len(failure.kept) // 2)
    while size and tries < TRIES:
        smaller = None
        for start in range(0, len(failure.kept), size):
            kept = failure.kept[:start] + failure.kept[start + size :]
            found = failure_of(failure.seed, events=failure.events, kept=kept)
            tries += 1
            if found is not None and found.invariant == failure.invariant:
                smaller = found
                break
        if smaller is None:
            size //= 2
        else:
            failure = smaller
            size = min(size, max(1, len(failure.kept)))
    return failure


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Run a seed of random faults on a simulated Raft cluster.")
    parser.add_argument("seed", type=int)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--keep")
    parser.add_argument("--mutant", default="")
    parser.add_argument("--trace", type=Path)
    options = parser.parse_args(arguments)
    kept = None
    if options.keep is not None:
        kept = [int(place) for place in options.keep.split(",")] if options.keep != "none" else []
    if options.trace is not None:
        print(f"{traced(options.seed, options.trace, events=options.events, kept=kept)} events traced")
    if options.mutant:
        from .raft_mutants import MUTANTS, planted

        (mutant,) = [mutant for mutant in MUTANTS if mutant.name == options.mutant]
        with planted(mutant) as fresh:
            failure = fresh.failure_of(options.seed, events=options.events, kept=kept)
    else:
        failure = failure_of(options.seed, events=options.events, kept=kept)
    if failure is None:
        print(f"seed {options.seed}: nothing is broken")
        return 0
    print(failure.report(options.mutant))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
