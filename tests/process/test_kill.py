"""kill -9 at any moment: every write that was answered is there after the restart.

The short form runs in `make test`, the long one in `make prove-kills`.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import Daemon, running
from tests.support.deadlines import SECONDS

URL = "/api/cluster/custom-metrics"


def write_until_killed(daemon: Daemon, stop_after: float) -> dict[str, float]:
    """Write metrics from two threads, and kill the daemon `stop_after` seconds after both have had an answer.

    Returns the last answered value of each metric.
    """
    answered: dict[str, float] = {}
    under_way = threading.Barrier(3, timeout=SECONDS)
    """Both writers have an answer."""

    def write(prefix: str) -> None:
        with daemon.client() as http:
            try:
                for number in range(100_000):
                    name = f"{prefix}_{number % 7}"
                    if number < 7 and http.post(
                        URL, json={"name": name, "type": "gauge"}
                    ).status_code not in {201, 409}:
                        continue
                    if http.put(URL, json={"name": name, "value": number}).is_success:
                        answered[name] = number
                        if number == 0:
                            under_way.wait()
            except httpx.HTTPError:
                return

    writers = [threading.Thread(target=write, args=(prefix,)) for prefix in ("a", "b")]
    for writer in writers:
        writer.start()
    under_way.wait()
    time.sleep(stop_after)  # a moment that has nothing to do with what is being written
    daemon.process.send_signal(signal.SIGKILL)
    for writer in writers:
        writer.join(SECONDS)
    daemon.process.wait(SECONDS)
    return answered


def kill_and_compare(folder: Path, rounds: int) -> None:
    rng = random.Random(rounds)
    for _ in range(rounds):
        with running(folder) as daemon:
            answered = write_until_killed(daemon, rng.uniform(0.0, 1.0))
        assert answered, "nothing was written before the kill"
        with running(folder) as daemon, daemon.client() as http:
            found = http.get(URL).json()["metrics"]
            uptime = http.get("/api/cluster/uptime").json()
            for name, value in answered.items():
                # One more may have been on its way when the daemon died: newer is right, older is lost.
                assert found[name]["value"] >= value, name
            assert uptime["historical"]["crashes"] >= 1
            assert daemon.stop() == 0


def test_an_answered_write_survives_kill_9(tmp_path: Path) -> None:
    kill_and_compare(tmp_path, 2)


@pytest.mark.slow
def test_answered_writes_survive_50_kills(tmp_path: Path) -> None:
    kill_and_compare(tmp_path, 50)


def test_a_clean_stop_is_no_crash_and_keeps_everything(tmp_path: Path) -> None:
    with running(tmp_path) as daemon, daemon.client() as http:
        assert http.post(URL, json={"name": "kept", "type": "counter"}).status_code == 201
        assert http.put(URL, json={"name": "kept", "delta": 3}).status_code == 200
        assert (
            http.post("/api/cluster/peers", json={"id": "node-4", "address": "127.0.0.1:7003"}).status_code
            == 201
        )
        assert daemon.stop() == 0
    with running(tmp_path) as daemon, daemon.client() as http:
        assert http.get(URL, params={"name": "kept"}).json()["value"] == 3
        assert "node-4" in http.get("/api/cluster/peers").text
        historical = http.get("/api/cluster/uptime").json()["historical"]
        assert (historical["crashes"], historical["restarts"], historical["total_sessions"]) == (0, 1, 2)


@pytest.mark.extended
def test_a_clean_stop_without_a_grace_is_no_crash(tmp_path: Path) -> None:
    with running(tmp_path, server="shutdown_grace = 0") as daemon:
        assert daemon.stop() == 0
    with running(tmp_path) as daemon, daemon.client() as http:
        historical = http.get("/api/cluster/uptime").json()["historical"]
        assert (historical["crashes"], historical["restarts"]) == (0, 1)
