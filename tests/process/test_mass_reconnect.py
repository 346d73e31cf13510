"""All clients reconnect at once, with resume: nothing is lost, and it does not take long.

The short form runs in `make test`, the long one in `make prove-reconnect`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.compiled import c_program
from tests.support.daemon_process import running
from tests.support.deadlines import at_most
from tests.support.event_load import writing

ALL_BACK_SECONDS = 15.0


def come_back(folder: Path, *, clients: int, rate: float, away: float, follow: float) -> Mapping[str, Any]:
    """What benchmarks/reconnect.c saw; it fails where one client missed something or got it twice."""
    program = c_program("reconnect")
    with running(folder, websocket=f"max_clients = {clients}") as daemon:
        target = f"/ws/cluster?token={daemon.token('viewer')}"
        with writing(daemon.address, daemon.token(), rate=rate, writers=2) as load:
            done = subprocess.run(
                [program, daemon.address, str(clients), str(away), str(follow)],
                env={**os.environ, "RECONNECT_TARGET": target},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        assert done.returncode == 0, done.stderr + "".join(daemon.raw[-5:])
        assert load.answered > 0
        report: Mapping[str, Any] = json.loads(done.stdout)
        assert daemon.stop() == 0
    return report


@pytest.mark.needs("gcc")
def test_500_clients_reconnect_with_resume_at_once_and_miss_nothing(tmp_path: Path) -> None:
    report = come_back(tmp_path, clients=500, rate=40.0, away=3.0, follow=0.5)
    assert report["replayed"] >= report["clients"]  # each came back to something
    assert report["back_seconds"] <= at_most(ALL_BACK_SECONDS)


@pytest.mark.slow
@pytest.mark.needs("gcc")
def test_5000_clients_reconnect_with_resume_at_once_and_miss_nothing(tmp_path: Path) -> None:
    report = come_back(tmp_path, clients=5000, rate=5.0, away=2.0, follow=2.0)
    print(report)
    assert report["replayed"] >= report["clients"]
    assert report["back_seconds"] <= ALL_BACK_SECONDS
