"""The benchmark runs: what it starts is the daemon as it is now, and the C loop beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def measure(*modes: str, seconds: float) -> str:
    """Run the benchmark of heliosd and the C loop in these modes; what it reports."""
    options = [f"--mode={mode}" for mode in modes]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.run", *options, "--clients=20", "--rounds=1"),
            *(f"--seconds={seconds}", "--server=heliosd", "--server=c"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.needs("gcc", "taskset")
@pytest.mark.extended
def test_heliosd_and_the_c_loop_are_measured() -> None:
    report = measure("paced", seconds=0.2)
    assert report.count("round 1/1: heliosd, 20 clients") == 1
    assert "paced_us " in report


@pytest.mark.slow
@pytest.mark.needs("gcc", "taskset")
def test_heliosd_and_the_c_loop_are_measured_in_every_mode_that_both_know() -> None:
    report = measure("paced", "lockstep", "bursts", "accepts", "blocked", seconds=0.5)
    assert report.count("round 1/1: heliosd, 20 clients") == 3
    for figure in ("paced_us", "flood_us", "burst_us", "blocked_us", "accepts"):
        assert f"{figure} " in report
