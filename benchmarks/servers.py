"""The servers compared: what each needs of the machine, how it is built, and how it is started.

Every server binds a free port of the loopback and writes one JSON line to standard error, as heliosd does:
`{"event":"ready","address":"HOST:PORT"}`. A new one is a class with the members of
`Server` and a line in `SERVERS`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Protocol

from .centrifugo import Centrifugo
from .heliosd_server import Heliosd
from .process import BUILD, HERE, Running, Task, compile_c, launched, output

GO_PATH = "/usr/share/gocode"
"""Where Debian's golang-github-gorilla-websocket-dev lies; `go build` then needs no network."""


class Server(Protocol):
    @property
    def name(self) -> str:
        """As it stands in the tables."""

    @property
    def speaks_tls(self) -> bool: ...

    def missing(self) -> str:
        """What this machine lacks for it, with the package that has it; "" if nothing."""

    def build(self) -> None:
        """Makes what `start` runs. Raises ServerFailed."""

    def version(self) -> str: ...

    def start(self, task: Task) -> Iterator[Running]:
        """Yields once, when the server accepts, and stops it afterwards. Raises ServerFailed."""


class CLoop:
    """The floor: `send()` in a loop, and nothing else; or the same by io_uring."""

    speaks_tls = False

    def __init__(self, name: str, *how: str) -> None:
        self.name = name
        self._how = how

    def missing(self) -> str:
        return "" if shutil.which("gcc") else "gcc"

    def build(self) -> None:
        compile_c(HERE / "peers" / "c_loop.c", BUILD / "c_loop")

    def version(self) -> str:
        return output(["gcc", "--version"]).splitlines()[0]

    def start(self, task: Task) -> Iterator[Running]:
        command = [
            str(BUILD / "c_loop"),
            str(round(task.interval * 1000)),
            str(task.message_bytes),
            *self._how,
        ]
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
    Heliosd("heliosd-write", fanout="write"),
    Heliosd("heliosd-uring", fanout="uring"),
    CLoop("c"),
    CLoop("c-uring", "uring"),
    PythonHub("picows"),
    PythonHub("websockets"),
    GoHub("go-prepared", "-prepared"),
    GoHub("go"),
    Centrifugo(),
)
