"""The examples that resume: what happens while they or the daemon are away reaches them, once and in order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import PASSWORD, Daemon, running, wait_until, write_config
from tests.support.deadlines import SECONDS
from tests.support.node_packages import copy_of_javascript
from tests.support.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
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


class Program:
    """A client that is started again and again with the same cursor; all that it prints is added to `output`."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        folder.mkdir(exist_ok=True)
        self._command = command
        self.output = folder / "output"
        self.output.touch()
        self.cursor = folder / "cursor"

    @contextmanager
    def running(self, daemon: Daemon) -> Iterator[None]:
        """For as long as the block lasts: it ends by SIGKILL."""
        env = {
            "HELIOSD_URL": daemon.url,
            "HELIOSD_USER": "admin",
            "HELIOSD_PASSWORD": PASSWORD,
            "HELIOSD_CURSOR": str(self.cursor),
        }
        with self.output.open("a") as file:
            process = subprocess.Popen(
                self._command, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(SECONDS)

    def heard(self, name: str) -> bool:
        return re.search(rf"\b{name}\b", self.output.read_text()) is not None

    def wait_heard(self, name: str) -> None:
        wait_until(lambda: self.heard(name))


def register(http: httpx.Client, name: str) -> None:
    answer = http.post(METRICS, json={"name": name, "type": "gauge"})
    assert answer.status_code == 201, answer.text


def hear_everything(folder: Path, programs: Sequence[Program], many: int) -> None:
    """While they run and not, across a kill -9 of the daemon, and more than a replay holds."""
    config = write_config(folder, listen=f"127.0.0.1:{free_port()}", websocket=QUIET)
    with ExitStack() as ended, running(folder, config) as daemon, daemon.client() as http:
        for program in programs:
            ended.enter_context(program.running(daemon))
        wait_until(lambda: all(each.heard(" leads") or each.heard("node_id") for each in programs))
        register(http, "while_there")
        for program in programs:
            program.wait_heard("while_there")
        daemon.stop(signal.SIGKILL)
        with running(folder, config) as again, again.client() as second:
            register(second, "after_the_kill")
            for program in programs:
                program.wait_heard("after_the_kill")
    assert all(program.cursor.exists() for program in programs)
    with running(folder, config) as third, third.client() as http, ExitStack() as ended:
        for number in range(many):
            register(http, f"away_{number}")
            http.delete(METRICS, params={"name": f"away_{number}"})
        for program in programs:
            ended.enter_context(program.running(third))
        for program in programs:
            program.wait_heard(f"away_{many - 1}")
        register(http, "at_the_end")
        for program in programs:
            program.wait_heard("at_the_end")
        newest = http.get("/api/cluster/history").json()["seq"]
        wait_until(lambda: all(json.loads(each.cursor.read_text())["seq"] >= newest for each in programs))
    for program in programs:
        text = program.output.read_text()
        assert "LOST" not in text
        found = [int(number) for number in re.findall(r"\baway_(\d+)\b(?= = 0|\":{)", text)]
        assert found == list(range(many))


def misses_no_number(output: Path) -> None:
    """Of a client without a filter that prints each message: a number may stand twice where it was killed."""
    messages = [json.loads(line) for line in output.read_text().splitlines() if line.startswith("{")]
    numbers = {message["seq"] for message in messages if "seq" in message}
    assert numbers == set(range(min(numbers), max(numbers) + 1))


def in_node(folder: Path) -> Program:
    copy = copy_of_javascript(folder / "javascript")
    return Program(folder / "node", ["node", str(copy / "resume.mjs")])


def in_python(folder: Path) -> Program:
    return Program(folder / "python", [sys.executable, str(EXAMPLES / "python" / "resume.py")])


@pytest.mark.needs("node")
def test_the_clients_in_node_and_in_python_miss_nothing(tmp_path: Path) -> None:
    python = in_python(tmp_path)
    hear_everything(tmp_path, [in_node(tmp_path), python], many=3)
    misses_no_number(python.output)


@pytest.mark.slow
def test_the_client_in_python_pages_through_what_a_replay_does_not_hold(tmp_path: Path) -> None:
    python = in_python(tmp_path)
    hear_everything(tmp_path, [python], many=700)
    misses_no_number(python.output)


@pytest.mark.slow
def test_the_client_in_python_renews_its_token_on_the_open_connection(tmp_path: Path) -> None:
    python = in_python(tmp_path)
    with (
        running(tmp_path, write_config(tmp_path, websocket=QUIET, auth="token_ttl = 2.0")) as daemon,
        python.running(daemon),
    ):
        wait_until(lambda: python.output.read_text().count('"authenticated"') >= 3)
    assert python.output.read_text().count('"welcome"') == 1


@pytest.mark.slow
@pytest.mark.needs("go")
def test_the_client_in_go_misses_nothing(tmp_path: Path, go_program: Path) -> None:
    hear_everything(tmp_path, [Program(tmp_path / "go", [str(go_program)])], many=3)


@pytest.mark.slow
@pytest.mark.needs("node")
def test_the_client_in_node_pages_through_what_a_replay_does_not_hold(tmp_path: Path) -> None:
    hear_everything(tmp_path, [in_node(tmp_path)], many=700)


@pytest.mark.slow
@pytest.mark.needs("go")
def test_the_client_in_go_pages_through_what_a_replay_does_not_hold(tmp_path: Path, go_program: Path) -> None:
    hear_everything(tmp_path, [Program(tmp_path / "go", [str(go_program)])], many=700)
