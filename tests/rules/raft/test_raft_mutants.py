"""Faults that are planted into the model: the general checker finds every one, and needs every invariant for it.

`make test` runs one seed for each. `make prove-raft` searches from seed 0, and shrinks what it finds.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time

import pytest

from tests.support import raft_checker as checker
from tests.support.raft_mutants import MUTANTS, REPOSITORY, Mutant, planted
from tests.support.raft_report import failure_of

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
LIMIT_SECONDS = 60.0
"""Of one core: for a search from seed 0."""
MAX_ACTIONS = 30
NEEDED = {
    checker.COMPLETENESS: ("a vote asks for no up-to-date log", 531),
    checker.OWN_TERM: ("entries of an old term are committed by counting", 2),
    checker.ONE_VOTE: ("the vote is forgotten by a restart", 12),
    checker.PERSIST_FIRST: ("an answer leaves before its write is durable", 1),
    checker.MAJORITY_OF_DISKS: ("a leader counts itself twice", 2),
    checker.ONE_CHANGE: ("two membership changes are uncommitted at once", 22),
    checker.CHANGE_AFTER_COMMIT: ("a membership changes before the term has a commit", 1),
    checker.MEMBERSHIP: ("a truncated membership stays in force", 25),
    checker.PREVOTE: ("a pre-vote enters the next term", 0),
    checker.INDICES: ("an entry beyond the commit index is applied", 2),
    checker.SNAPSHOT: ("a snapshot has the membership of the one before", 10),
    checker.READS: ("a leader answers reads without asking its followers", 74),
    checker.CHECK_QUORUM: ("half of an even number is a majority", 4),
    checker.MACHINE_SAFETY: ("a snapshot does not reach the state machine", 17),
    checker.MAJORITY_OF_VOTES: ("a vote of an earlier term counts", 400),
    checker.LEASE: ("a member that hears a leader votes for another", 14),
    checker.TRANSFER: ("proposals are taken while leadership is transferred", 3),
    checker.SNAPSHOT_FORWARD: ("an old snapshot is installed", 32),
    checker.COMMIT_FORWARD: ("a commit index follows every message", 0),
    checker.TERM_FORWARD: ("a message of an old term is obeyed", 0),
    checker.LOG_MATCHING: ("a leader writes over its own uncommitted entry", 1),
    checker.APPEND_ONLY: ("a leader drops its last entry when a follower rejects it", 13),
    checker.ELECTION_SAFETY: ("a voter takes the candidate for the leader", 9),
    checker.PUBLISHED: ("a no-op is applied and not published", 0),
    checker.BY_ONE: ("two members are removed at once", 3),
    checker.LEARNER: ("a learner campaigns", 2),
    checker.PROMOTION: ("a learner is promoted before it has caught up", 22),
    checker.LIVENESS: ("a member is wiped before its removal is committed", 4),
}
"""Of each invariant: a fault, and a seed whose run does not find it without this invariant."""


def test_every_planted_fault_is_found_by_a_run() -> None:
    """The faults in `NEEDED` are found there."""
    for mutant in MUTANTS:
        if mutant.name in dict(NEEDED.values()):
            continue
        with planted(mutant) as report:
            assert report.failure_of(mutant.seed) is not None, mutant.name
    assert failure_of(0) is None, "without a fault nothing is found"


@pytest.mark.extended
def test_no_invariant_is_idle() -> None:
    assert NEEDED.keys() == set(checker.INVARIANTS)
    for invariant, (name, seed) in NEEDED.items():
        with planted(BY_NAME[name]) as report:
            found = report.failure_of(seed)
            assert found is not None, invariant
            assert found.invariant == invariant
            assert report.failure_of(seed, without=(invariant,)) is None, invariant


def test_a_report_replays_exactly_in_another_process() -> None:
    mutant = BY_NAME["an old snapshot is installed"]
    with planted(mutant) as report:
        failure = report.failure_of(mutant.seed)
        assert failure is not None
        text, command = failure.report(mutant.name), failure.command(mutant.name)
    assert command in text
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.rstrip("\n")) == (1, text)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_planted_fault_is_found_within_a_minute(mutant: Mutant) -> None:
    with planted(mutant) as report:
        began, seed = time.process_time(), 0
        while (failure := report.failure_of(seed)) is None:
            seed += 1
            assert time.process_time() - began < LIMIT_SECONDS
        seconds = time.process_time() - began
    print(f"{mutant.name}: seed {seed}, {seconds:.1f} s, {failure.invariant}")


@pytest.mark.slow
def test_five_of_six_failures_shrink_to_30_actions_at_most() -> None:
    small = 0
    for mutant in MUTANTS:
        with planted(mutant) as report:
            failure = report.failure_of(mutant.seed)
            assert failure is not None
            actions = len(report.shrunk(failure).kept)
        print(f"{mutant.name}: {actions} actions")
        small += actions <= MAX_ACTIONS
    assert small >= len(MUTANTS) * 5 / 6
