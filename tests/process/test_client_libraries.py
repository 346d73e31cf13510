"""Client libraries of other people, in seven languages, with their defaults: `make prove-clients`.

Each program of tests/clients/ connects by a DNS name with an `Authorization` header, prints what comes, and how it
ends. Over ws and wss each gets `status` and is disconnected by an admin (4000), logged out (4401), resumed with a
cursor (`welcome`), and closed with 1001 when the daemon stops.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.certificates import self_signed
from tests.support.daemon_process import Daemon, lacking, running, wait_until
from tests.support.deadlines import SECONDS

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parents[1] / "clients"
BUILD = Path(__file__).parents[2] / "build" / "clients"
PYTHON = str(BUILD / "python" / "bin" / "python")
"""Where `make prove-clients` has installed the libraries."""


class Library(NamedTuple):
    name: str
    command: tuple[str, ...]
    """The URL is added."""


def of(language: str, program: tuple[str, ...], *names: str) -> list[Library]:
    return [Library(f"{language} {name}", (*program, name)) for name in names]


LIBRARIES = [
    *of(
        "python",
        (PYTHON, str(SOURCES / "python_clients.py")),
        *("websockets_sync", "websockets_asyncio", "aiohttp", "websocket_client", "httpx_ws", "tornado"),
        *("picows", "autobahn", "trio_websocket"),
    ),
    *of(
        "node",
        ("node", str(BUILD / "node" / "node_clients.js")),
        *("ws", "undici", "faye-websocket", "websocket"),
    ),
    *of("go", (str(BUILD / "go-client"),), "gorilla", "coder", "gobwas"),
    Library("java java.net.http", ("java", "-cp", str(BUILD), "Client")),
    Library("perl AnyEvent", ("perl", str(SOURCES / "anyevent.pl"))),
    Library("perl Mojo", ("perl", str(SOURCES / "mojo.pl"))),
    Library("ruby faye-websocket", ("ruby", str(SOURCES / "faye.rb"))),
    Library("rust tungstenite", (str(BUILD / "rust" / "release" / "client"),)),
]


class Program:
    """One run of a library's program."""

    def __init__(self, library: Library, url: str, token: str) -> None:
        self._process = subprocess.Popen(
            [*library.command, url],
            env=os.environ | {"HELIOSD_TOKEN": token},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    def message(self, wanted: str) -> dict[str, Any]:
        """The next message of that type; whatever else it prints but messages fails."""
        while (line := self._lines.get(timeout=SECONDS)).startswith("{"):
            message = json.loads(line)
            if message["type"] == wanted:
                return dict(message)
        raise AssertionError(f"{line!r} came before {wanted}")

    def code(self) -> str:
        """How its connection ended."""
        while (line := self._lines.get(timeout=SECONDS)).startswith("{"):
            pass
        return line

    def end(self) -> None:
        self._process.kill()
        self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def connected(library: Library, daemon: Daemon, token: str, query: str = "") -> Iterator[Program]:
    scheme, port = "wss" if daemon.tls else "ws", daemon.address.rpartition(":")[2]
    program = Program(library, f"{scheme}://localhost:{port}/ws/cluster{query}", token)
    try:
        yield program
    finally:
        program.end()


@pytest.fixture(scope="module", params=["ws", "wss"])
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp(request.param)
    tls = ""
    if request.param == "wss":
        cert_file, key_file = self_signed(folder)
        tls = f'tls_cert = "{cert_file}"\ntls_key = "{key_file}"'
    with running(folder, server=tls) as started:
        yield started


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.name)
def library(request: pytest.FixtureRequest) -> Library:
    found: Library = request.param
    if shutil.which(found.command[0]) is None:
        lacking(f"{found.name}: {found.command[0]} is not there")
    return found


def test_it_gets_the_status_and_4000_from_an_admin(daemon: Daemon, library: Library) -> None:
    with daemon.client() as http, connected(library, daemon, daemon.token("viewer")) as program:
        assert program.message("status")["data"]["leader"]
        (mine,) = [
            each for each in http.get("/api/cluster/clients").json()["clients"] if each["user"] == "viewer"
        ]
        assert http.delete("/api/cluster/clients", params={"id": mine["id"]}).status_code == 200
        assert program.code() == "closed 4000"
        wait_until(lambda: http.get("/api/cluster/clients").json()["total"] == 0)


def test_it_resumes_and_gets_4401_after_a_logout(daemon: Daemon, library: Library) -> None:
    token = daemon.token("viewer")
    with daemon.client() as http:
        page = http.get("/api/cluster/history", params={"limit": 1}).json()
        query = f"?epoch={page['epoch']}&after={max(0, page['seq'] - 1)}"
        with connected(library, daemon, token, query) as program:
            welcome = program.message("welcome")["data"]
            assert (welcome["recovered"], welcome["replayed"]) == (True, 1)
            assert (
                http.post("/api/auth/logout", headers={"Authorization": f"Bearer {token}"}).status_code == 200
            )
            assert program.code() == "closed 4401"


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_all_of_them_get_1001_when_the_daemon_stops(tmp_path: Path, tls: bool) -> None:
    server = ""
    if tls:
        cert_file, key_file = self_signed(tmp_path)
        server = f'tls_cert = "{cert_file}"\ntls_key = "{key_file}"'
    here = [library for library in LIBRARIES if shutil.which(library.command[0])]
    with running(tmp_path, server=server) as daemon:
        token = daemon.token("viewer")
        url = f"{'wss' if tls else 'ws'}://localhost:{daemon.address.rpartition(':')[2]}/ws/cluster"
        programs = {library.name: Program(library, url, token) for library in here}
        try:
            for program in programs.values():
                program.message("status")
            assert daemon.stop() == 0
            codes = {name: program.code() for name, program in programs.items()}
        finally:
            for program in programs.values():
                program.end()
    print(f"{len(here)} of {len(LIBRARIES)}", file=sys.stderr)
    assert codes == dict.fromkeys(programs, "closed 1001")
