"""Clients that are connected and get no events: they stay, and cost almost nothing.

The short form runs in `make test`, the long one (10,000 clients, ten minutes) in `make prove-idle`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.footprint import cpu_seconds, resident_bytes, wakings
from tests.support.command_line import printed_by
from tests.support.compiled import c_program
from tests.support.daemon_process import Daemon, lacking, running, wait_until, write_config

ON_DEMAND = {"quart", "quart_trio", "werkzeug", "jinja2", "hypercorn"}
ON_DEMAND |= {"jwt", "cryptography", "httpx", "prometheus_client"}
ON_DEMAND |= {"heliosd.cluster.etcd.backend", "heliosd.web.rest.description.openapi"}
"""What an idle daemon on the simulated backend has not imported."""
IDLE_CPU_SHARE = 0.05
"""Of one core, the simulated cluster's own life included."""
QUIET_CPU_SHARE = 0.005
MAX_WAKINGS = 12
"""A second, of a daemon without clients on three simulated members."""
QUIET_SECONDS = 4
MAX_IDLE_BYTES = 42 * 2**20
"""Resident, of a daemon that nobody has asked for anything."""


def stay(folder: Path, *, clients: int, seconds: float, websocket: str = "") -> dict[str, Any]:
    """What benchmarks/load.c saw of `clients` that get no events for `seconds`; it fails when one is dropped."""
    needed = clients + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        if hard < needed:
            lacking(f"{needed} descriptors for one process; the limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    program = c_program("load")
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
@pytest.mark.extended
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


def default_timing(folder: Path) -> Path:
    """A configuration with the heartbeats of a configuration file that says nothing of them."""
    config = write_config(folder)
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith(("election_", "heartbeat_"))))
    return config


def is_quiet(daemon: Daemon) -> bool:
    """Whether it is woken seldom in the next `QUIET_SECONDS`."""
    before = wakings(daemon.pid)
    time.sleep(QUIET_SECONDS)  # the time in which they are counted
    return wakings(daemon.pid) - before <= MAX_WAKINGS * QUIET_SECONDS


def test_a_daemon_without_clients_is_seldom_woken(tmp_path: Path) -> None:
    with running(tmp_path, default_timing(tmp_path)) as daemon:
        wait_until(lambda: is_quiet(daemon), pause=0)  # not at once: a start leaves something to do


@pytest.mark.slow
def test_a_daemon_without_clients_costs_next_to_nothing(tmp_path: Path) -> None:
    with running(tmp_path, default_timing(tmp_path)) as daemon:
        time.sleep(5)  # what a start leaves to do
        woken, used = wakings(daemon.pid), cpu_seconds(daemon.pid)
        time.sleep(60)  # the time that is measured
        share = (cpu_seconds(daemon.pid) - used) / 60
        per_second = (wakings(daemon.pid) - woken) / 60
        resident = resident_bytes(daemon.pid)
    print(f"{share:.2%} of a core, {per_second:.1f} wakings a second, {resident / 2**20:.1f} MiB")
    assert resident <= MAX_IDLE_BYTES
    assert per_second <= MAX_WAKINGS
    assert share <= QUIET_CPU_SHARE


def test_an_idle_daemon_has_imported_nothing_that_only_some_requests_need(tmp_path: Path) -> None:
    with running(tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"}) as daemon:
        token = cli_token(tmp_path, daemon)
        with httpx.Client(
            base_url=daemon.url, headers={"Authorization": f"Bearer {token}"}, verify=False
        ) as client:
            assert client.get("/readyz").status_code == 200
            assert client.get("/api/cluster/status").status_code == 200
            assert not ON_DEMAND & imported(daemon)
            assert client.get("/metrics").status_code == 200
            assert client.post("/api/cluster/latency/reset").status_code == 200
            assert ON_DEMAND & imported(daemon) >= {"prometheus_client", "quart_trio"}


def imported(daemon: Daemon) -> set[str]:
    """The modules that the daemon has imported so far, by what Python writes of each."""
    lines = [line for line in daemon.raw if line.startswith("import time:")]
    assert lines
    return {line.rpartition("|")[2].strip() for line in lines}


def cli_token(folder: Path, daemon: Daemon) -> str:
    """A token that no login had to make."""
    options = ["--config", str(daemon.config), "--user", "admin"]
    return printed_by("token", *options, STATE_DIRECTORY=str(folder / "state")).strip()


def summary(report: dict[str, Any]) -> str:
    share = report["cpu_seconds"] / report["seconds"]
    kib = (report["resident_after"] - report["resident_before"]) / 1024 / report["clients"]
    return f"{share:.1%} of a core, {report['pings']} pings, {kib:.1f} KiB a client"
