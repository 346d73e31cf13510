"""Members that are added, removed and killed at random, through the simulated backend."""

from __future__ import annotations

import logging
import os

import pytest
from trio.testing import MockClock

from tests.support.membership_chaos import MembershipChaos


@pytest.mark.parametrize("seed", range(6))
async def test_no_answered_write_is_lost_and_a_majority_always_elects(
    autojump_clock: MockClock, seed: int
) -> None:
    await MembershipChaos(seed).run(kills=10)


@pytest.mark.parametrize("seed", range(2))
async def test_nor_while_members_crash_pause_and_are_cut_off(autojump_clock: MockClock, seed: int) -> None:
    await MembershipChaos(seed, faults=True).run(kills=4)


@pytest.mark.slow
@pytest.mark.parametrize("faults", [False, True])
async def test_no_answered_write_is_lost_in_many_seeds(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, faults: bool
) -> None:
    first, number = int(os.environ.get("FIRST_SEED", "1000")), int(os.environ.get("SEEDS", "2000"))
    kills = int(os.environ.get("KILLS", "4" if faults else "10"))
    caplog.set_level(logging.CRITICAL)  # a line for each refused write would be kept for the report
    for seed in range(first, first + number):
        try:
            await MembershipChaos(seed, faults=faults).run(kills=kills)
        except BaseException as failed:
            failed.add_note(f"seed {seed}")
            raise
