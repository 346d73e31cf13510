"""A heliosd as its users run it: a process of its own, a config file, a data directory, real sockets."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .deadlines import SECONDS
from .engines import FANOUT
from .passwords import cheap_hash
from .process_log import ProcessLog

PASSWORD = "correct horse"
_HASH = cheap_hash(PASSWORD)

CONFIG = """
[node]
id = "{node}"
[server]
listen = "{listen}"
{server}
[websocket]
{websocket}
[log]
format = "json"
[cluster.simulated]
election_timeout = 0.15
heartbeat_interval = 0.03
{simulated}
{cluster}
[auth]
login_attempts_per_minute = 1000
{auth}
[[auth.users]]
name = "admin"
password_hash = "{hash}"
roles = ["admin"]
[[auth.users]]
name = "viewer"
password_hash = "{hash}"
roles = ["viewer"]
[[auth.users]]
name = "nobody"
password_hash = "{hash}"
roles = []
"""


def write_config(
    folder: Path,
    *,
    node: str = "node-1",
    listen: str = "127.0.0.1:0",
    server: str = "",
    websocket: str = "",
    simulated: str = "",
    cluster: str = "",
    auth: str = "",
    password_hash: str = _HASH,
) -> Path:
    """`cluster` is whole sections; the others are lines of the section that they are named for."""
    path = folder / "config.toml"
    if FANOUT and "fanout = " not in websocket:
        websocket += f'\nfanout = "{FANOUT}"'
    text = CONFIG.format(
        node=node,
        listen=listen,
        server=server,
        websocket=websocket,
        simulated=simulated,
        cluster=cluster,
        auth=auth,
        hash=password_hash,
    )
    path.write_text(text, encoding="utf-8")
    return path


def lacking(reason: str) -> NoReturn:
    """This machine cannot run the test: it is skipped, and in CI it fails."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass
class Daemon:
    """One running process. `lines` are all that it has logged so far, parsed; `raw` is the text."""

    process: subprocess.Popen[bytes]
    config: Path
    log: ProcessLog
    address: str = ""
    tls: bool = False
    _kept_token: str = ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return self.log.lines

    @property
    def raw(self) -> list[str]:
        return self.log.raw

    @cached_property
    def _http(self) -> httpx.Client:
        """For questions that are asked again and again; like other clients' ones, each has its own connection."""
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(timeout=SECONDS, verify=False, limits=limits)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_ready(self) -> bool:
        try:
            return self._http.get(f"{self.url}/readyz").status_code == 200
        except httpx.RemoteProtocolError:
            # A start that waited for its disk closes its connections before the daemon takes over.
            return False

    def register_gauge(self, name: str) -> None:
        with self.client() as http:
            answer = http.post("/api/cluster/custom-metrics", json={"name": name, "type": "gauge"})
        assert answer.status_code == 201, answer.text

    def wait_logged(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first log line that fits, waiting for it if need be."""
        deadline = time.monotonic() + SECONDS
        seen = 0
        while True:
            ended = self.log.ended
            for line in self.lines[seen:]:
                if wanted(line):
                    return line
                seen += 1
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"not in the log: {source_of(wanted)}\n{''.join(self.raw[-30:])}")
            self.log.wait(0.2)

    def token(self, user: str = "admin") -> str:
        """Of a login, which is repeated while the daemon has no time for it."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            body = {"username": user, "password": PASSWORD}
            url = f"{self.url}/api/auth/login"
            answers.append(httpx.post(url, json=body, timeout=SECONDS, verify=False))
            return answers[-1].status_code != 503

        wait_until(answered, pause=0.5)
        assert answers[-1].status_code == 200, answers[-1].text
        return str(answers[-1].json()["token"])

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """As admin, with the token of the first time: a condition that is waited for costs no login."""
        self._kept_token = self._kept_token or self.token()
        headers = {"Authorization": f"Bearer {self._kept_token}"}
        return self._http.request(method, self.url + path, headers=headers, **options)

    def client(self, user: str = "admin") -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token(user)}"},
            timeout=SECONDS,
            verify=False,
        )

    def connect(self, token: str, **options: Any) -> AbstractContextManager[ClientConnection]:
        """A client on `/ws/cluster` for as long as a `with` lasts."""
        url = f"{'wss' if self.tls else 'ws'}://{self.address}/ws/cluster?token={quote(token)}"
        return closing_connection(url, {"compression": None, **options})

    def wait_listening(self) -> None:
        """Until the log says that it is, and where."""
        line = self.wait_logged(lambda entry: entry.get("event") == "ready")
        self.address, self.tls = line["address"], bool(line["tls"])

    def wait_ready(self) -> None:
        """Until a leader is known here."""
        try:
            wait_until(self.is_ready)
        except AssertionError as error:
            with self.client() as http:
                error.add_note(http.get("/readyz").text)
            raise

    def rss_bytes(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208

    def close(self) -> None:
        """Once its process has ended."""
        self._http.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)


@contextmanager
def closing_connection(url: str, options: dict[str, Any]) -> Iterator[ClientConnection]:
    """A client for as long as a `with` lasts. Over TLS 1.2: this library reads in a second thread, and Python 3.11
    may lose what one thread sends over TLS 1.3 while another reads the session tickets."""
    if isinstance(context := options.get("ssl"), ssl.SSLContext):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(url, open_timeout=SECONDS, **options) as connection:
        yield connection


def wait_until(holds: Callable[[], bool], seconds: float = SECONDS, pause: float | None = None) -> None:
    """Return once `holds()`; fail after `seconds`, with the source of the condition. Asks every `pause` seconds; by
    default often at first and every 50 ms later: most conditions cost a request, and two cores are all there is."""
    deadline = time.monotonic() + seconds
    next_pause = 0.01 if pause is None else pause
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {source_of(holds)}")
        time.sleep(next_pause)
        if pause is None:
            next_pause = min(0.05, 1.3 * next_pause)


def source_of(condition: Callable[..., bool]) -> str:
    """What a failure shows of a condition that did not come to hold."""
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)


def receive(socket: ClientConnection, wanted: str, seconds: float = SECONDS) -> dict[str, Any]:
    """The next message of that type; others are passed over."""
    deadline = time.monotonic() + seconds
    passed_over: list[str] = []
    while True:
        try:
            message = json.loads(socket.recv(timeout=max(0.0, deadline - time.monotonic())))
        except TimeoutError:
            raise AssertionError(f"no {wanted} within {seconds:g} s, only {passed_over[-20:]}") from None
        if message["type"] == wanted:
            return dict(message)
        passed_over.append(message["type"])


def welcomed(daemon: Daemon, token: str, query: str) -> dict[str, Any]:
    """The data of the `welcome` that a client with this query is sent."""
    url = f"ws://{daemon.address}/ws/cluster?token={token}&{query}"
    with closing_connection(url, {}) as socket:
        return dict(receive(socket, "welcome")["data"])


def messages_until_closed(socket: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """Every message up to the close, and the code in the close frame (None: there was none)."""
    messages = []
    try:
        while True:
            messages.append(json.loads(socket.recv(SECONDS)))
    except ConnectionClosed as closed:
        return messages, None if closed.rcvd is None else int(closed.rcvd.code)


def close_code(socket: ClientConnection) -> int | None:
    """The code that the daemon closes with; messages before it are passed over."""
    return messages_until_closed(socket)[1]


@contextmanager
def running(
    folder: Path,
    config: Path | None = None,
    *,
    ready: bool = True,
    env: dict[str, str] | None = None,
    **sections: str,
) -> Iterator[Daemon]:
    """A daemon with its data under `folder`; ended by its id when the block ends."""
    config = config or write_config(folder, **sections)
    state = folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    with logging_process(
        [sys.executable, "-m", "heliosd", "serve", "--config", str(config)],
        config,
        {"STATE_DIRECTORY": str(state), **(env or {})},
    ) as daemon:
        daemon.wait_listening()
        if ready:
            daemon.wait_ready()
        yield daemon


@contextmanager
def logging_process(
    command: list[str],
    config: Path,
    env: dict[str, str],
    *,
    stdin: bool = False,
    pass_fds: tuple[int, ...] = (),
) -> Iterator[Daemon]:
    """A process that is, or becomes, a daemon. It need not listen yet. `stdin`: the test writes to it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if stdin else None,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **env},
        pass_fds=pass_fds,
    )
    assert process.stderr is not None
    log = ProcessLog(process.stderr)
    daemon = Daemon(process, config, log)
    reader = threading.Thread(target=log.follow)
    reader.start()
    try:
        yield daemon
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        reader.join(SECONDS)
        daemon.close()
        log.close()
        if process.stdin is not None:
            process.stdin.close()
