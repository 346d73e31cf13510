"""Every attack of tests/attacks/ on one daemon, as `make prove-attacks` runs them. `make test` runs one of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon_process import PASSWORD, Daemon, running

ROOT = Path(__file__).parents[2]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path) as started:
        yield started


def attack(daemon: Daemon, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    key = folder / "state" / "jwt_secret"
    command = [sys.executable, "-m", "tests.attacks", daemon.url, "--signing-key", str(key), *options]
    env = os.environ | {"HELIOSD_PASSWORD": PASSWORD}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_no_forged_token_holds(daemon: Daemon, tmp_path: Path) -> None:
    done = attack(daemon, tmp_path, "--only", "tokens", "--healthz-ms", "10000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert daemon.stop() == 0


@pytest.mark.extended
def test_a_fault_of_the_daemon_is_found(daemon: Daemon, tmp_path: Path) -> None:
    # This daemon's /healthz is never that quick.
    assert attack(daemon, tmp_path, "--only", "queries", "--healthz-ms", "0").returncode == 1


@pytest.mark.slow
def test_the_daemon_withstands_every_attack(daemon: Daemon, tmp_path: Path) -> None:
    done = attack(daemon, tmp_path, "--other-users", "viewer,nobody")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert daemon.stop() == 0
    key = (tmp_path / "state" / "jwt_secret").read_bytes()
    log = "".join(daemon.raw).encode()
    stored = {path: path.read_bytes() for path in (tmp_path / "state").iterdir() if path.name != "jwt_secret"}
    for secret in (PASSWORD.encode(), key):
        assert secret not in log
        assert not [path for path, content in stored.items() if secret in content]
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xe2\x80[\xa8\xa9]", log), "what splits or hides a line"
    assert not [line for line in daemon.lines if line.get("level") in {"error", "critical"}]
    refused = [line for line in daemon.lines if line["event"] == "client refused"]
    assert len(refused) < 1500, "each refused upgrade has a line of its own"
