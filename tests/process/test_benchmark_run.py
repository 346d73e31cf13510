"""The benchmark runs: what it starts is the daemon as it is now, and the C loop beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.needs("gcc", "taskset")
def test_heliosd_and_the_c_loop_are_measured_in_every_mode_that_both_know() -> None:
    modes = [f"--mode={mode}" for mode in ("paced", "lockstep", "bursts", "accepts", "blocked")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.run", *modes, "--clients=20", "--rounds=1", "--seconds=0.5"),
            *("--server=heliosd", "--server=c"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("round 1/1: heliosd, 20 clients") == 3
    for figure in ("paced_us", "flood_us", "burst_us", "blocked_us", "accepts"):
        assert f"{figure} " in done.stderr
