"""The servers compared: what each needs of the machine, how it is built, and how it is started.

Every server binds a free port of the loopback and writes one JSON line to standard error, as heliosd does:
`{"event":"ready","address":"HOST:PORT"}`. A new one is a class with the members of
`Server` and a line in `SERVERS`.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Protocol

from .process import BUILD, HERE, START_SECONDS, Running, ServerFailed, Task, compile_c, launched, output
from .tokens import write_tokens

GO_PATH = "/usr/share/gocode"
"""Where Debian's golang-github-gorilla-websocket-dev lies; `go build` then needs no network."""


class Server(Protocol):
    name: str
    speaks_tls: bool

    def missing(self) -> str:
        """What this machine lacks for it, with the package that has it; "" if nothing."""

    def build(self) -> None:
        """Makes what `start` runs. Raises ServerFailed."""

    def version(self) -> str: ...

    def start(self, task: Task) -> Iterator[Running]:
        """Yields once, when the server accepts, and stops it afterwards. Raises ServerFailed."""


class Heliosd:
    """This repository's daemon as its users run it: a config file, users, tokens, real status messages.

    Only status messages: one of another type that is due in the same moment would share their write.
    """

    name = "heliosd"
    speaks_tls = True

    def missing(self) -> str:
        return "" if util.find_spec("heliosd.daemon") else "heliosd (pip install -e . in this environment)"

    def build(self) -> None:
        pass

    def version(self) -> str:
        packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("heliosd", "trio"))
        return f"{packages}, Python {sys.version.split()[0]}"

    def start(self, task: Task) -> Iterator[Running]:
        command = [sys.executable, "-m", "heliosd"]
        config = task.scratch / "heliosd.toml"
        pem = json.dumps(str(task.certificate))
        config.write_text(
            f"""
            [node]
            data_dir = {json.dumps(str(task.scratch / "data"))}
            [server]
            listen = "127.0.0.1:0"
            {f"tls_cert = {pem}" if task.certificate else ""}
            {f"tls_key = {pem}" if task.certificate else ""}
            [websocket]
            status_interval = {task.interval}
            latency_interval = 3600
            uptime_interval = 3600
            max_clients = {task.clients + 100}
            [[auth.users]]
            name = "viewer"
            password_hash = {json.dumps(_password_hash())}
            roles = ["viewer"]
            [log]
            format = "json"
            """
        )
        module = "heliosd" if task.beats is None else "benchmarks.heliosd_on_beats"
        with launched([sys.executable, "-m", module, "serve", "--config", str(config)], task) as (
            pid,
            address,
        ):
            _wait_until_ready(f"http{'s' if task.certificate else ''}://{address}/readyz")
            token = output([*command, "token", "--config", str(config), "--user", "viewer"]).strip()
            own = task.scratch / "tokens" if task.own_tokens else None
            if own is not None:
                write_tokens(own, config, "viewer", task.clients)
            yield Running(self.name, pid, address, f"/ws/cluster?token={'' if own else token}", token, own)


class CLoop:
    """The floor: `send()` in a loop, and nothing else."""

    name = "c"
    speaks_tls = False

    def missing(self) -> str:
        return "" if shutil.which("gcc") else "gcc"

    def build(self) -> None:
        compile_c(HERE / "peers" / "c_loop.c", BUILD / "c_loop")

    def version(self) -> str:
        return output(["gcc", "--version"]).splitlines()[0]

    def start(self, task: Task) -> Iterator[Running]:
        command = [str(BUILD / "c_loop"), str(round(task.interval * 1000)), str(task.message_bytes)]
        with launched(command, task) as (pid, address):
            yield Running(self.name, pid, address)


class GoHub:
    """A gorilla hub: a goroutine that owns the clients, a channel and a write pump for each of them."""

    speaks_tls = True

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
        output(
            ["go", "build", "-o", str(BUILD / "go_hub"), "."], cwd=HERE / "peers" / "go_hub", env=environment
        )

    def version(self) -> str:
        go = output(["go", "version"]).split()[2]
        if not shutil.which("dpkg-query"):
            return go
        package = "golang-github-gorilla-websocket-dev"
        return f"{go}, gorilla {output(['dpkg-query', '-W', '-f', '${Version}', package])}"

    def start(self, task: Task) -> Iterator[Running]:
        command = [str(BUILD / "go_hub"), "-interval", f"{task.interval}s", "-size", str(task.message_bytes)]
        if task.certificate is not None:
            command += ["-cert", str(task.certificate)]
        with launched([*command, *self._flags], task) as (pid, address):
            yield Running(self.name, pid, address)


class PythonHub:
    """A hub on uvloop in `peers/`, by one of the libraries for that."""

    speaks_tls = False

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str:
        lacking = [package for package in (self.name, "uvloop") if not util.find_spec(package)]
        return f"{' and '.join(lacking)} (pip install -e '.[bench]' in this environment)" if lacking else ""

    def build(self) -> None:
        pass

    def version(self) -> str:
        return ", ".join(f"{package} {metadata.version(package)}" for package in (self.name, "uvloop"))

    def start(self, task: Task) -> Iterator[Running]:
        hub = [sys.executable, "-m", f"benchmarks.peers.{self.name}_hub"]
        with launched([*hub, str(task.interval * 1000), str(task.message_bytes)], task) as (pid, address):
            yield Running(self.name, pid, address)


SERVERS: tuple[Server, ...] = (
    Heliosd(),
    CLoop(),
    PythonHub("picows"),
    PythonHub("websockets"),
    GoHub("go-prepared", "-prepared"),
    GoHub("go"),
)


@cache
def _password_hash() -> str:
    command = [sys.executable, "-m", "heliosd", "hash-password"]
    return output(command, text="benchmark password\n").splitlines()[-1]


def _wait_until_ready(url: str) -> None:
    """Until the daemon answers 200: a cluster without a leader sends other messages than one at rest."""
    deadline = time.monotonic() + START_SECONDS
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5, context=anyone):
                return
        except urllib.error.HTTPError:
            time.sleep(0.05)
    raise ServerFailed(f"{url} did not answer 200 in {START_SECONDS:.0f} s")
