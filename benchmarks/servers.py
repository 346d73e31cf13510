"""The servers compared: what each needs of the machine, how it is built, and how it is started.

Every server binds a free port of the loopback and writes one JSON line to standard error, as heliosd does:
`{"event":"ready","address":"HOST:PORT"}`. A new one is a class with the members of
`Server` and a line in `SERVERS`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Protocol

HERE = Path(__file__).parent
BUILD = HERE / "build"
START_SECONDS = 20.0
STOP_SECONDS = 10.0
GO_PATH = "/usr/share/gocode"
"""Where Debian's golang-github-gorilla-websocket-dev lies; `go build` then needs no network."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts. `target` is what a client asks for: path, query and token."""

    name: str
    pid: int
    address: str
    target: str = "/ws/cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a server is to do: send `message_bytes` to every client each `interval` seconds."""

    interval: float
    message_bytes: int
    clients: int
    cpu: int
    scratch: Path
    """An empty directory for this start alone."""


class ServerFailed(Exception):
    """A server did not build or did not come up; the text is what it said."""


class Server(Protocol):
    name: str

    def missing(self) -> str:
        """What this machine lacks for it, with the Debian package; "" if nothing."""

    def build(self) -> None:
        """Makes what `start` runs. Raises ServerFailed."""

    def version(self) -> str: ...

    def start(self, task: Task) -> Iterator[Running]:
        """Yields once, when the server accepts, and stops it afterwards. Raises ServerFailed."""


class Heliosd:
    """This repository's daemon as its users run it: a config file, users, tokens, real status messages."""

    name = "heliosd"

    def missing(self) -> str:
        return "" if util.find_spec("heliosd.daemon") else "heliosd (pip install -e . in this environment)"

    def build(self) -> None:
        pass

    def version(self) -> str:
        packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("heliosd", "trio", "wsproto"))
        return f"{packages}, Python {sys.version.split()[0]}"

    def start(self, task: Task) -> Iterator[Running]:
        command = [sys.executable, "-m", "heliosd"]
        password_hash = _output([*command, "hash-password"], text="benchmark password\n").splitlines()[-1]
        config = task.scratch / "heliosd.toml"
        config.write_text(
            f"""
            [node]
            data_dir = {json.dumps(str(task.scratch / "data"))}
            [server]
            listen = "127.0.0.1:0"
            [websocket]
            status_interval = {task.interval}
            max_clients = {task.clients + 100}
            [[auth.users]]
            name = "viewer"
            password_hash = {json.dumps(password_hash)}
            roles = ["viewer"]
            [log]
            format = "json"
            """
        )
        with launched([*command, "serve", "--config", str(config)], task) as (pid, address):
            _wait_until_ready(f"http://{address}/readyz")
            token = _output([*command, "token", "--config", str(config), "--user", "viewer"]).strip()
            yield Running(self.name, pid, address, f"/ws/cluster?token={token}")


class CLoop:
    """The floor: `send()` in a loop, and nothing else."""

    name = "c"

    def missing(self) -> str:
        return "" if shutil.which("gcc") else "gcc"

    def build(self) -> None:
        compile_c(HERE / "peers" / "c_loop.c", BUILD / "c_loop")

    def version(self) -> str:
        return _output(["gcc", "--version"]).splitlines()[0]

    def start(self, task: Task) -> Iterator[Running]:
        command = [str(BUILD / "c_loop"), str(round(task.interval * 1000)), str(task.message_bytes)]
        with launched(command, task) as (pid, address):
            yield Running(self.name, pid, address)


class GoHub:
    """A gorilla hub: a goroutine that owns the clients, a channel and a write pump for each of them."""

    def __init__(self, name: str, *flags: str) -> None:
        self.name = name
        self._flags = flags

    def missing(self) -> str:
        if not shutil.which("go"):
            return "go (golang-go)"
        gorilla = Path(GO_PATH, "src/github.com/gorilla/websocket")
        return "" if gorilla.is_dir() else "gorilla (golang-github-gorilla-websocket-dev)"

    def build(self) -> None:
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": GO_PATH}
        _output(
            ["go", "build", "-o", str(BUILD / "go_hub"), "."], cwd=HERE / "peers" / "go_hub", env=environment
        )

    def version(self) -> str:
        go = _output(["go", "version"]).split()[2]
        if not shutil.which("dpkg-query"):
            return go
        package = "golang-github-gorilla-websocket-dev"
        return f"{go}, gorilla {_output(['dpkg-query', '-W', '-f', '${Version}', package])}"

    def start(self, task: Task) -> Iterator[Running]:
        pace = ["-interval", f"{task.interval}s", "-size", str(task.message_bytes)]
        with launched([str(BUILD / "go_hub"), *pace, *self._flags], task) as (pid, address):
            yield Running(self.name, pid, address)


SERVERS: tuple[Server, ...] = (
    Heliosd(),
    CLoop(),
    GoHub("go"),
    GoHub("go-prepared", "-prepared"),
)


def compile_c(source: Path, program: Path) -> None:
    """Builds one C file. Raises ServerFailed with the compiler's words."""
    program.parent.mkdir(exist_ok=True)
    _output(["gcc", "-std=c17", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)])


@contextmanager
def launched(command: Sequence[str], task: Task) -> Iterator[tuple[int, str]]:
    """A process pinned to `task.cpu`, its pid and the address it told; at the end it gets SIGTERM."""
    log = task.scratch / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(["taskset", "-c", str(task.cpu), *command], stdout=stderr, stderr=stderr)
    try:
        yield process.pid, _address_from(log, process)
    except Exception as failure:
        if process.poll() is None:
            raise
        raise ServerFailed(_last_words(process, log)) from failure
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address_from(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                record = json.loads(line)
                if record.get("event") == "ready":
                    return str(record["address"])
        time.sleep(0.02)
    raise ServerFailed(f"not ready: {_last_words(process, log)}")


def _last_words(process: subprocess.Popen[bytes], log: Path) -> str:
    return f"{process.args!r} (exit code {process.returncode}):\n{log.read_text(errors='replace')[-2000:]}"


def _wait_until_ready(url: str) -> None:
    """Until the daemon answers 200: a cluster without a leader sends other messages than one at rest."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            time.sleep(0.1)
    raise ServerFailed(f"{url} did not answer 200 in {START_SECONDS:.0f} s")


def _output(
    command: Sequence[str],
    *,
    text: str | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> str:
    done = subprocess.run(
        command, input=text, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise ServerFailed(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout
