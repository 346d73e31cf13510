"""The examples that resume: what happens while they or the daemon are away reaches them, once and in order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import PASSWORD, Daemon, running, wait_until, write_config
from tests.support.deadlines import SECONDS
from tests.support.node_packages import copy_of_javascript
from tests.support.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTHON = [sys.executable, str(EXAMPLES / "python" / "resume.py")]
GOPATH = Path("/usr/share/gocode")
METRICS = "/api/cluster/custom-metrics"
QUIET = "status_interval = 600.0\nlatency_interval = 600.0\nuptime_interval = 600.0"


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("go") / "follow"
    subprocess.run(
        ["go", "build", "-o", program, "."],
        cwd=EXAMPLES / "go",
        env={**os.environ, "GO111MODULE": "off", "GOPATH": str(GOPATH)},
        check=True,
        timeout=300,
    )
    return program


@contextmanager
def program_running(command: list[str], output: Path, env: Mapping[str, str]) -> Iterator[None]:
    """The program for as long as the block lasts; what it prints is added to `output`."""
    with output.open("a") as file:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)


def register(http: httpx.Client, name: str) -> None:
    answer = http.post(METRICS, json={"name": name, "type": "gauge"})
    assert answer.status_code == 201, answer.text


def hears_everything(command: list[str], folder: Path, many: int) -> None:
    """While it runs and not, across a kill -9 of the daemon, and more than a replay holds."""
    config = write_config(folder, listen=f"127.0.0.1:{free_port()}", websocket=QUIET)
    output, cursor = folder / "output", folder / "cursor"
    output.touch()

    def heard(name: str) -> bool:
        return re.search(rf"\b{name}\b", output.read_text()) is not None

    with running(folder, config) as daemon:
        daemon.wait_ready()
        env = environment(daemon, cursor)
        with program_running(command, output, env), daemon.client() as http:
            wait_until(lambda: heard(" leads") or heard("node_id"))
            register(http, "while_there")
            wait_until(lambda: heard("while_there"))
            daemon.stop(signal.SIGKILL)
            with running(folder, config) as again, again.client() as second:
                again.wait_ready()
                register(second, "after_the_kill")
                wait_until(lambda: heard("after_the_kill"))
        assert cursor.exists()
    with running(folder, config) as third, third.client() as http:
        third.wait_ready()
        for number in range(many):
            register(http, f"away_{number}")
            http.delete(METRICS, params={"name": f"away_{number}"})
        with program_running(command, output, env):
            wait_until(lambda: heard(f"away_{many - 1}"))
            register(http, "at_the_end")
            wait_until(lambda: heard("at_the_end"))
            newest = http.get("/api/cluster/history").json()["seq"]
            wait_until(lambda: json.loads(cursor.read_text())["seq"] >= newest)
    text = output.read_text()
    assert "LOST" not in text
    found = [int(number) for number in re.findall(r"\baway_(\d+)\b(?= = 0|\":{)", text)]
    assert found == list(range(many))


def misses_no_number(output: Path) -> None:
    """Of a client without a filter that prints each message: a number may stand twice where it was killed."""
    messages = [json.loads(line) for line in output.read_text().splitlines() if line.startswith("{")]
    numbers = {message["seq"] for message in messages if "seq" in message}
    assert numbers == set(range(min(numbers), max(numbers) + 1))


def environment(daemon: Daemon, cursor: Path) -> dict[str, str]:
    return {
        "HELIOSD_URL": daemon.url,
        "HELIOSD_USER": "admin",
        "HELIOSD_PASSWORD": PASSWORD,
        "HELIOSD_CURSOR": str(cursor),
    }


@pytest.mark.needs("node")
def test_the_client_in_node_misses_nothing(tmp_path: Path) -> None:
    folder = copy_of_javascript(tmp_path / "javascript")
    hears_everything(["node", str(folder / "resume.mjs")], tmp_path, many=3)


def test_the_client_in_python_misses_nothing(tmp_path: Path) -> None:
    hears_everything(PYTHON, tmp_path, many=3)
    misses_no_number(tmp_path / "output")


@pytest.mark.slow
def test_the_client_in_python_pages_through_what_a_replay_does_not_hold(tmp_path: Path) -> None:
    hears_everything(PYTHON, tmp_path, many=700)
    misses_no_number(tmp_path / "output")


@pytest.mark.slow
def test_the_client_in_python_renews_its_token_on_the_open_connection(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with running(tmp_path, write_config(tmp_path, websocket=QUIET, auth="token_ttl = 2.0")) as daemon:
        daemon.wait_ready()
        with program_running(PYTHON, output, environment(daemon, tmp_path / "cursor")):
            wait_until(lambda: output.read_text().count('"authenticated"') >= 3)
    assert output.read_text().count('"welcome"') == 1


@pytest.mark.slow
@pytest.mark.needs("go")
def test_the_client_in_go_misses_nothing(tmp_path: Path, go_program: Path) -> None:
    hears_everything([str(go_program)], tmp_path, many=3)


@pytest.mark.slow
@pytest.mark.needs("node")
def test_the_client_in_node_pages_through_what_a_replay_does_not_hold(tmp_path: Path) -> None:
    folder = copy_of_javascript(tmp_path / "javascript")
    hears_everything(["node", str(folder / "resume.mjs")], tmp_path, many=700)


@pytest.mark.slow
@pytest.mark.needs("go")
def test_the_client_in_go_pages_through_what_a_replay_does_not_hold(tmp_path: Path, go_program: Path) -> None:
    hears_everything([str(go_program)], tmp_path, many=700)
