"""Clients that are connected and get no events: they stay, and cost almost nothing.

The short form runs in `make test`, the long one (10,000 clients, ten minutes) in `make prove-idle`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import lacking, running

SOURCE = Path(__file__).parents[2] / "benchmarks" / "load.c"
IDLE_CPU_SHARE = 0.05
"""Of one core, the simulated cluster's own life included."""


def stay(folder: Path, *, clients: int, seconds: float, websocket: str = "") -> dict[str, Any]:
    """What benchmarks/load.c saw of `clients` that get no events for `seconds`; it fails when one is dropped."""
    needed = clients + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        if hard < needed:
            lacking(f"{needed} descriptors for one process; the limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    program = folder / "load"
    subprocess.run(["gcc", "-std=c17", "-O2", "-o", program, SOURCE], check=True, timeout=60)
    with running(folder, websocket=f"max_clients = {clients}\n{websocket}") as daemon:
        target = f"/ws/cluster?types=snapshot&token={daemon.token('viewer')}"
        done = subprocess.run(
            [program, daemon.address, str(clients), "2", str(seconds), str(daemon.pid)],
            env={**os.environ, "LOAD_TARGET": target},
            capture_output=True,
            text=True,
            timeout=seconds + 120,
            check=False,
        )
        assert done.returncode == 0, done.stderr + "".join(daemon.raw[-5:])
        assert daemon.stop() == 0
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.needs("gcc")
def test_idle_clients_stay_and_are_pinged(tmp_path: Path) -> None:
    report = stay(tmp_path, clients=300, seconds=3.0, websocket="ping_interval = 1.0\nread_timeout = 2.0")
    assert (
        report["pings"] >= 2 * 300
    )  # three intervals; a client that had not answered would be gone after two seconds
    assert report["deliveries"] == 0


@pytest.mark.slow
@pytest.mark.needs("gcc")
def test_10000_idle_clients_stay_for_ten_minutes(tmp_path: Path) -> None:
    report = stay(tmp_path, clients=10_000, seconds=600.0)
    print(summary(report))
    assert report["pings"] >= 19 * 10_000


@pytest.mark.slow
@pytest.mark.needs("gcc")
def test_beside_pings_10000_idle_clients_cost_next_to_nothing(tmp_path: Path) -> None:
    report = stay(
        tmp_path, clients=10_000, seconds=60.0, websocket="ping_interval = 3600.0\nread_timeout = 7200.0"
    )
    print(summary(report))
    assert report["cpu_seconds"] / report["seconds"] <= IDLE_CPU_SHARE


def summary(report: dict[str, Any]) -> str:
    share = report["cpu_seconds"] / report["seconds"]
    kib = (report["resident_after"] - report["resident_before"]) / 1024 / report["clients"]
    return f"{share:.1%} of a core, {report['pings']} pings, {kib:.1f} KiB a client"
