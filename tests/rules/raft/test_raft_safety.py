"""Raft's safety under random faults, and its liveness once they have ended, by many seeds."""

from __future__ import annotations

import os

import pytest

from tests.support.checked_cluster import Chaos


@pytest.mark.parametrize("seed", range(40))
def test_no_fault_breaks_safety_and_a_healed_cluster_makes_progress(seed: int) -> None:
    chaos = Chaos(seed, "abc" if seed % 2 else "abcde")
    chaos.run(1500)
    chaos.heal()


@pytest.mark.slow
def test_no_fault_breaks_safety_in_many_seeds() -> None:
    first, number = int(os.environ.get("FIRST_SEED", "1000")), int(os.environ.get("SEEDS", "2000"))
    for seed in range(first, first + number):
        try:
            chaos = Chaos(seed, ("a", "ab", "abc", "abcde")[seed % 4])
            chaos.run(1500)
            chaos.heal()
        except BaseException as failed:
            failed.add_note(f"seed {seed}")
            raise


def test_a_seed_repeats_everything() -> None:
    histories = []
    for _ in range(2):
        chaos = Chaos(5)
        chaos.run(800)
        histories.append(chaos.checked.history)
    assert histories[0] == histories[1]
    assert len(histories[0]) > 50
