"""A disk that is full, read-only or failing: at the start, meanwhile and at the stop."""

from __future__ import annotations

import itertools
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.daemon_process import (
    Daemon,
    lacking,
    logging_process,
    running,
    wait_until,
    welcomed,
    write_config,
)
from tests.support.deadlines import SECONDS
from tests.support.small_disk import SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as made:
        yield made


@contextmanager
def on(disk: SmallDisk, config: Path, *, ready: bool = False) -> Iterator[Daemon]:
    with running(disk.path, config, ready=ready) as daemon:
        yield daemon


def readiness(daemon: Daemon) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(f"{daemon.url}/readyz", timeout=SECONDS, verify=False)
    return answer.status_code, answer.json()


def wait_refused(daemon: Daemon, word: str) -> None:
    """Until `/readyz` is 503 for that reason."""

    def refused() -> bool:
        status, answer = readiness(daemon)
        return status == 503 and word in answer["reason"]

    wait_until(refused)


def errors(daemon: Daemon) -> list[str]:
    return [line["event"] for line in daemon.lines if line.get("level") in {"error", "critical"}]


WAITING = "the data directory cannot be written; waiting until it can"


def test_a_first_start_on_a_full_disk_waits_says_why_and_goes_on_by_itself(
    tmp_path: Path, disk: SmallDisk
) -> None:
    (disk.path / "state").mkdir(mode=0o700)
    disk.fill()
    with on(disk, write_config(tmp_path)) as daemon:
        status, answer = readiness(daemon)
        assert (status, answer["ready"]) == (503, False)
        assert "full" in answer["reason"]
        assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).json() == {"status": "ok"}
        login = httpx.post(f"{daemon.url}/api/auth/login", json={}, timeout=SECONDS, verify=False)
        assert (login.status_code, login.headers["Retry-After"]) == (503, "1")
        with pytest.raises(InvalidStatus, match="503"), daemon.connect("no token yet"):
            pass
        daemon.process.send_signal(signal.SIGHUP)  # is remembered
        disk.free()
        daemon.wait_ready()
        daemon.wait_logged(lambda line: line.get("event") == "configuration reloaded")
        assert errors(daemon) == [WAITING]
        with daemon.client() as client:
            metric = {"name": "jobs", "type": "gauge"}
            assert client.post("/api/cluster/metrics", json=metric).status_code == 201
        assert daemon.stop() == 0


@pytest.mark.slow
def test_a_stop_while_a_start_waits_for_the_disk_is_clean(tmp_path: Path, disk: SmallDisk) -> None:
    (disk.path / "state").mkdir(mode=0o700)
    disk.fill()
    with on(disk, write_config(tmp_path)) as daemon:
        assert daemon.stop() == 0
        assert daemon.lines[-1]["event"] == "stopped"


@pytest.mark.parametrize(
    "trouble",
    [
        "full",
        pytest.param("read-only", marks=pytest.mark.slow),
        pytest.param("no inodes", marks=pytest.mark.slow),
    ],
)
@pytest.mark.extended
def test_a_start_with_data_on_a_disk_in_trouble_goes_on_by_itself_with_all_that_was_there(
    tmp_path: Path, disk: SmallDisk, trouble: str
) -> None:
    config = write_config(tmp_path)
    with on(disk, config, ready=True) as daemon:
        token = daemon.token()
        with daemon.client() as client:
            client.post("/api/cluster/metrics", json={"name": "jobs", "type": "gauge"}).raise_for_status()
            client.put("/api/cluster/metrics", json={"name": "jobs", "value": 7}).raise_for_status()
            client.post("/api/auth/logout").raise_for_status()
            revoked = client.headers["Authorization"]
        cursor = welcomed(daemon, token, "after=now")
        assert daemon.stop() == 0  # after a kill the log would have room left
    begin, end = {
        "full": (disk.fill, disk.free),
        "read-only": (lambda: disk.remount("ro"), lambda: disk.remount("rw")),
        "no inodes": (disk.use_up_inodes, disk.free),
    }[trouble]
    begin()
    with on(disk, config) as daemon:
        status, answer = readiness(daemon)
        assert (status, answer["ready"]) == (503, False)
        assert {"full": "full", "read-only": "Read-only", "no inodes": "No space"}[trouble] in answer[
            "reason"
        ]
        end()
        daemon.wait_ready()
        assert len(errors(daemon)) == 1
        with daemon.client() as client:
            assert client.get("/api/cluster/metrics?name=jobs").json()["value"] == 7
            refused = client.get("/api/auth/me", headers={"Authorization": revoked})
            assert refused.status_code == 401
        welcome = welcomed(daemon, token, f"epoch={cursor['epoch']}&after={cursor['seq']}")
        # What happened while it was full is in no log: then the count is another one.
        assert welcome["recovered"] == (welcome["epoch"] == cursor["epoch"])
        assert daemon.stop() == 0


@pytest.mark.slow
def test_a_disk_that_fills_up_meanwhile_refuses_writes_until_it_has_room_also_when_it_stops(
    tmp_path: Path, disk: SmallDisk
) -> None:
    config = write_config(tmp_path)
    with on(disk, config, ready=True) as daemon, daemon.client() as client:
        client.post("/api/cluster/metrics", json={"name": "jobs", "type": "gauge"}).raise_for_status()
        disk.fill()
        # What the write-ahead log has room for yet is taken. These writes make the database larger: a checkpoint
        # between two that do not would give the log its room back, again and again.
        names = itertools.cycle(["filling", "up"])

        def refused() -> bool:
            name = next(names)
            made = client.post(
                "/api/cluster/metrics", json={"name": name, "type": "gauge", "help": "x" * 4000}
            )
            client.delete("/api/cluster/metrics", params={"name": name})
            return made.status_code in {503, 507}

        wait_until(refused)
        wait_refused(daemon, "")
        disk.free()
        daemon.wait_ready()
        kept = client.put("/api/cluster/metrics", json={"name": "jobs", "value": 7})
        assert kept.status_code == 200
        disk.fill()
        assert daemon.stop() == 0
        disk.free()
    with on(disk, config, ready=True) as daemon, daemon.client() as client:
        assert client.get("/api/cluster/metrics?name=jobs").json()["value"] == 7


@pytest.mark.slow
def test_a_disk_whose_writes_fail_is_the_same_as_a_full_one(tmp_path: Path) -> None:
    """The kernel refuses writes beyond an offset, which SQLite calls a disk I/O error."""
    config = write_config(tmp_path)
    limited = ["prlimit", "--fsize=1000:unlimited", sys.executable, "-m", "heliosd"]
    env = {"STATE_DIRECTORY": str(tmp_path / "state")}
    with logging_process([*limited, "serve", "--config", str(config)], config, env) as daemon:
        daemon.wait_listening()
        wait_refused(daemon, "I/O error")
        allow_writes(daemon)
        daemon.wait_ready()
        with daemon.client() as client:
            client.post("/api/cluster/metrics", json={"name": "jobs", "type": "gauge"}).raise_for_status()
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            refused = client.post("/api/cluster/metrics", json={"name": "more", "type": "gauge"})
            assert refused.status_code in {503, 507}
            allow_writes(daemon)
            daemon.wait_ready()
            assert client.get("/api/cluster/metrics?name=more").status_code == 404
        assert daemon.stop() == 0


def allow_writes(daemon: Daemon) -> None:
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.slow
def test_a_clock_that_is_a_year_off_brings_back_no_token_and_loses_no_cursor(tmp_path: Path) -> None:
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        lacking("Debian's faketime is not installed")
    offset = tmp_path / "offset"
    env = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    offset.write_text("+0")
    config = write_config(tmp_path)
    with running(tmp_path, config, env=env) as daemon:
        token = daemon.token()
        with daemon.client() as client:
            client.post("/api/cluster/metrics", json={"name": "jobs", "type": "gauge"}).raise_for_status()
            client.post("/api/auth/logout").raise_for_status()
            revoked = client.headers["Authorization"]
        cursor = welcomed(daemon, token, "after=now")
        for leap in ("+365d", "-365d", "+0"):
            offset.write_text(leap)
            works_apart_from(daemon, cursor, revoked, f"Bearer {token}")
        assert daemon.stop() == 0
    for leap in ("+365d", "-365d", "+0"):
        offset.write_text(leap)
        with running(tmp_path, config, env=env) as daemon:
            works_apart_from(daemon, cursor, revoked)
            assert daemon.stop() == 0


def works_apart_from(daemon: Daemon, cursor: dict[str, Any], *refused: str) -> None:
    """New logins, writes and cursors hold, and these `Authorization` headers do not."""
    daemon.wait_ready()
    for each in refused:
        answer = httpx.get(
            f"{daemon.url}/api/auth/me", headers={"Authorization": each}, timeout=SECONDS, verify=False
        )
        assert answer.status_code == 401
    with daemon.client() as client:
        assert client.put("/api/cluster/metrics", json={"name": "jobs", "value": 7}).status_code == 200
        assert client.get("/api/cluster/metrics?name=jobs").json()["value"] == 7
        new = client.headers["Authorization"].removeprefix("Bearer ")
        welcome = welcomed(daemon, new, f"epoch={cursor['epoch']}&after={cursor['seq']}")
    assert (welcome["epoch"], welcome["recovered"]) == (cursor["epoch"], True)
    assert welcome["replayed"] == welcome["seq"] - cursor["seq"]
