"""Raft's safety under random faults, and its liveness once they have ended, by many seeds."""

from __future__ import annotations

import os
import resource
import time

import pytest

from tests.support.raft_chaos import Run
from tests.support.raft_plan import plan_of
from tests.support.raft_report import failure_of, shrunk

MAX_GROWTH_MIB = 50.0
"""Of memory, after the first 500 seeds."""


def check(seed: int, events: int) -> int:
    """Run a seed. Returns how many events it had."""
    run = Run(plan_of(seed, events), events)
    try:
        run.run()
    except Exception as error:
        failure = failure_of(seed, events=events)
        assert failure is not None
        raise AssertionError(shrunk(failure).report()) from error
    return run.done


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_no_fault_breaks_an_invariant_and_a_healed_cluster_makes_progress(first: int) -> None:
    for seed in range(first, first + 20):
        check(seed, events=1000)


@pytest.mark.slow
def test_no_fault_breaks_an_invariant_in_many_seeds() -> None:
    """10,000 seeds take a quarter of an hour of one core."""
    first, number = int(os.environ.get("FIRST_SEED", "1000")), int(os.environ.get("SEEDS", "2000"))
    began, events, memory = time.process_time(), 0, []
    for done, seed in enumerate(range(first, first + number), 1):
        events += check(seed, events=5000)
        if done % 500 == 0 or done == number:
            rate = events / (time.process_time() - began)
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            print(
                f"{done} seeds from {first}: {events:,} events, {rate:,.0f} a second, "
                f"{memory[-1]:.0f} MiB at most, no invariant broken",
                flush=True,
            )
    assert memory[-1] - memory[0] < MAX_GROWTH_MIB


def test_a_seed_repeats_everything() -> None:
    traces = []
    for _ in range(2):
        run = Run(plan_of(5), events=800)
        run.run()
        traces.append((run.trace, run.done, run.cluster.now))
    assert traces[0] == traces[1]
