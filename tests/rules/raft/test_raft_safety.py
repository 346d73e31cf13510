"""Raft's safety under everything that may go wrong, by many seeds; and its liveness once all is well again."""

from __future__ import annotations

import pytest

from tests.support.checked_cluster import Chaos


@pytest.mark.parametrize("seed", range(40))
def test_no_fault_breaks_safety_and_a_healed_cluster_makes_progress(seed: int) -> None:
    chaos = Chaos(seed, "abc" if seed % 2 else "abcde")
    chaos.run(1500)
    chaos.heal()


def test_a_seed_repeats_everything() -> None:
    histories = []
    for _ in range(2):
        chaos = Chaos(5)
        chaos.run(800)
        histories.append(chaos.checked.history)
    assert histories[0] == histories[1]
    assert len(histories[0]) > 50
