"""Raft's safety under random faults, and its liveness once they have ended, by many seeds."""

from __future__ import annotations

import os

import pytest

from tests.support.raft_chaos import Run, plan_of
from tests.support.raft_report import failure_of, shrunk


def check(seed: int, events: int) -> None:
    failure = failure_of(seed, events=events)
    assert failure is None, shrunk(failure).report()


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_no_fault_breaks_an_invariant_and_a_healed_cluster_makes_progress(first: int) -> None:
    for seed in range(first, first + 20):
        check(seed, events=1000)


@pytest.mark.slow
def test_no_fault_breaks_an_invariant_in_many_seeds() -> None:
    """10,000 seeds take an hour."""
    first, number = int(os.environ.get("FIRST_SEED", "1000")), int(os.environ.get("SEEDS", "2000"))
    for seed in range(first, first + number):
        check(seed, events=5000)


def test_a_seed_repeats_everything() -> None:
    traces = []
    for _ in range(2):
        run = Run(plan_of(5), events=800)
        run.run()
        traces.append((run.trace, run.done, run.cluster.now))
    assert traces[0] == traces[1]
