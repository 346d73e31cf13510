"""Random schedules on our members and on those of etcd-io/raft (`make prove-raft-peer`, docs/raft.md)."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from tests.support.raft_differential import Schedule, build, compare
from tests.support.raft_mutants import MUTANTS, planted


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = build(tmp_path_factory.mktemp("peer"))
    if program is None:
        pytest.skip("no Go here to build etcd-io/raft with")
    return program


@pytest.mark.slow
def test_members_of_both_are_in_the_same_state_at_every_quiet_point(peer: Path) -> None:
    first, number = int(os.environ.get("FIRST_SEED", "0")), int(os.environ.get("SEEDS", "1000"))
    points, differences = compare(peer, range(first, first + number))
    print(f"{number} seeds, {points} quiet points, {len(differences)} differences")
    assert not differences, differences[0]
    assert points > 10 * number


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "the vote is forgotten by a restart",
        "a pre-vote enters the next term",
        "a candidate votes for another one too",
        "a leader that hears no majority stays",
    ],
)
def test_the_comparison_finds_a_planted_fault(peer: Path, name: str) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    with planted(mutant):
        faulty = importlib.import_module("tests.support.raft_differential")
        _, differences = faulty.compare(peer, range(100))
    assert differences


def test_the_schedules_have_leaders_that_change_and_members_that_come_and_go() -> None:
    kinds = [step.split()[0] for seed in range(30) for step in Schedule(seed).steps]
    assert {"propose", "elect", "cut", "crash", "restart", "compact", "transfer", "add", "remove"} <= set(
        kinds
    )
    terms = {row.term for state in Schedule(3).states for row in state or ()}
    assert len(terms) > 1
