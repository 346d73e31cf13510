"""Commands that show something again and again, and those that must not be done twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.command_line import exit_code_of
from tests.support.daemon_process import Daemon, running
from tests.support.deadlines import SECONDS

COMMAND = [sys.executable, "-m", "heliosd"]
METRICS = "/api/cluster/custom-metrics"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("repeated")) as started:
        yield started


@pytest.fixture(scope="module")
def token(daemon: Daemon) -> str:
    return daemon.token()


@pytest.fixture(autouse=True)
def environment(daemon: Daemon, token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HELIOSD_URL", daemon.url)
    monkeypatch.setenv("HELIOSD_TOKEN", token)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@contextmanager
def repeating(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.extended
def test_with_a_pause_it_shows_the_same_again_and_again(capfd: pytest.CaptureFixture[str]) -> None:
    with repeating("members", "-w", "0.1", "-o", "json") as process:
        assert process.stdout is not None
        shown = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (130, "")
    assert [len(each["members"]) for each in shown] == [3, 3, 3]
    assert exit_code_of("members", "-w", "0") == 2
    assert "0.1 to 86400" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("inc", ["metrics", "inc", "jobs_total", "-w"]),
        ("inc", ["metrics", "inc", "jobs_total", "--watch=0.1"]),
        ("inc", ["metrics", "-w", "0.1", "inc", "jobs_total"]),
        ("delete", ["metrics", "delete", "jobs_total", "-w"]),
        ("add", ["members", "add", "node-9", "127.0.0.1:7999", "-w"]),
        ("remove", ["members", "remove", "node-9", "-w", "0.1"]),
        ("take", ["snapshot", "take", "-w"]),
        ("disconnect", ["clients", "disconnect", "nobody", "-w"]),
    ],
)
def test_what_changes_something_refuses_to_be_repeated(verb: str, arguments: list[str]) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    said = f"heliosd: -w, --watch: {verb} changes something, and is done once\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_help_offers_a_pause_only_for_what_reads(capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of("metrics", "inc", "--help") == 0
    assert "--watch" not in capfd.readouterr().out
    assert exit_code_of("metrics", "list", "--help") == 0
    assert "--watch" in capfd.readouterr().out


def test_a_pause_in_the_environment_is_for_what_reads(
    daemon: Daemon, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bearer = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=daemon.url, headers=bearer, timeout=SECONDS) as http:
        http.post(METRICS, json={"name": "jobs_total", "type": "counter"}).raise_for_status()
    monkeypatch.setenv("HELIOSD_WATCH", "0.1")
    counted = subprocess.run(
        [*COMMAND, "metrics", "inc", "jobs_total"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (counted.returncode, counted.stderr) == (0, "")
    with repeating("metrics", "list", "jobs_total", "-o", "json") as process:
        assert process.stdout is not None
        shown = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [each["metrics"]["jobs_total"]["value"] for each in shown] == [1, 1]
