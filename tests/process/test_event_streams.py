"""Event streams and tickets from the outside: curl, a client that breaks off, two hundred that come and go."""

from __future__ import annotations

import json
import queue
import shutil
import signal
import socket as stdlib
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.daemon_process import Daemon, close_code, closing_connection, receive, running, wait_until
from tests.support.deadlines import SECONDS, at_most

METRICS = "/api/cluster/custom-metrics"
EVENTS = "/api/cluster/events"
QUIET = "status_interval = 600.0\nlatency_interval = 600.0\nuptime_interval = 600.0"
MANY = 200


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("streams"), websocket=QUIET) as started:
        yield started


@pytest.fixture(scope="module")
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


class Stream:
    """An event stream, read by a thread of its own. `blocks` come as an EventSource would see them."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.blocks: queue.Queue[dict[str, str] | None] = queue.Queue()
        self._client = httpx.Client(timeout=SECONDS, verify=False)
        self._opened = self._client.stream("GET", url, headers=headers or {})
        self.answer = self._opened.__enter__()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        block: dict[str, str] = {}
        try:
            for line in self.answer.iter_lines():
                if line:
                    name, _, value = line.partition(":")
                    block[name] = value.removeprefix(" ")
                else:
                    self.blocks.put(block)
                    block = {}
        except httpx.HTTPError:
            pass
        self.blocks.put(None)

    def next(self) -> dict[str, str] | None:
        """The next block; None at the end of the stream."""
        return self.blocks.get(timeout=SECONDS)

    def next_event(self) -> tuple[str, int]:
        """The id of the next event and its seq; what is no event is passed over."""
        while True:
            block = self.next()
            assert block is not None, "the stream has ended"
            seq = json.loads(block.get("data", "{}")).get("seq")
            if seq is not None:
                return block["id"], seq

    def close(self) -> None:
        # The thread that reads is blocked in a receive, which only the end of the stream ends.
        with suppress(OSError):  # it has ended already
            self.answer.extensions["network_stream"].get_extra_info("socket").shutdown(stdlib.SHUT_RDWR)
        self._reader.join(SECONDS)
        self._opened.__exit__(None, None, None)
        self._client.close()


@contextmanager
def streaming(daemon: Daemon, query: str = "", headers: dict[str, str] | None = None) -> Iterator[Stream]:
    bearer = {"Authorization": f"Bearer {daemon.token()}"}
    stream = Stream(f"{daemon.url}{EVENTS}{query}", {**bearer, **(headers or {})})
    try:
        yield stream
    finally:
        stream.close()


def register(http: httpx.Client, name: str) -> None:
    assert http.post(METRICS, json={"name": name, "type": "gauge"}).status_code == 201


def ticket(http: httpx.Client) -> str:
    answer = http.post("/api/auth/ticket")
    assert answer.status_code == 201
    return str(answer.json()["ticket"])


def clients(http: httpx.Client) -> list[dict[str, str]]:
    found: list[dict[str, str]] = http.get("/api/cluster/clients").json()["clients"]
    return found


@pytest.mark.needs("curl")
def test_curl_shows_an_event_at_once(daemon: Daemon, http: httpx.Client) -> None:
    curl = subprocess.Popen(
        [shutil.which("curl") or "curl", "-sN", f"{daemon.url}{EVENTS}?ticket={ticket(http)}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert curl.stdout is not None
        assert curl.stdout.readline().startswith("id: ")
        assert curl.stdout.readline().startswith('data: {"type":"status",')
        assert curl.stdout.readline() == "\n"
        register(http, "for_curl")
        answered = time.monotonic()
        lines: list[str] = []
        while not any("for_curl" in line for line in lines):
            lines.append(curl.stdout.readline())
            assert lines[-1], lines
        assert lines[-2].startswith("id: ")
        assert time.monotonic() - answered < at_most(1)
    finally:
        curl.kill()
        curl.wait(SECONDS)
        assert curl.stdout is not None
        curl.stdout.close()


def test_a_stream_is_a_client_like_any_other_but_no_session(daemon: Daemon, http: httpx.Client) -> None:
    wait_until(lambda: not clients(http))
    with streaming(daemon) as stream:
        first = stream.next()
        assert first is not None
        assert json.loads(first["data"])["data"]["clients"] == 1
        (client,) = clients(http)
        assert (client["user"], client["transport"]) == ("admin", "sse")
        assert client["address"].startswith("127.0.0.1:")
        assert http.get("/api/cluster/status").json()["sessions"]["active_count"] == 0
        metrics = http.get("/metrics").text
        assert "\nheliosd_ws_clients 0.0\n" in metrics
        assert "\nheliosd_sse_clients 1.0\n" in metrics
        assert http.delete("/api/cluster/clients", params={"id": client["id"]}).status_code == 200
        assert stream.next() == {"": "4000 disconnected by an administrator"}
        assert stream.next() is None
    joined = daemon.wait_logged(
        lambda line: line["event"] == "client joined" and line["client"] == client["id"]
    )
    left = daemon.wait_logged(lambda line: line["event"] == "client left" and line["client"] == client["id"])
    assert (joined["transport"], left["code"]) == ("sse", 4000)


def test_a_stream_that_breaks_off_again_and_again_misses_nothing_and_gets_nothing_twice(
    daemon: Daemon, http: httpx.Client
) -> None:
    register(http, "before")
    with streaming(daemon, "?after=now") as stream:
        welcome = stream.next()
        assert welcome is not None
        start = json.loads(welcome["data"])["data"]
    last, heard = f"{start['epoch']}:{start['seq']}", []
    stop = threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            register(http, f"load_{number}")

    loading = threading.Thread(target=load)
    loading.start()
    try:
        for attempt in range(20):
            with streaming(daemon, "?epoch=ignored&after=1", {"Last-Event-ID": last}) as stream:
                welcome = stream.next()
                assert welcome is not None
                assert json.loads(welcome["data"])["data"]["recovered"] is True
                for _ in range(1 + attempt % 5):
                    last, seq = stream.next_event()
                    heard.append(seq)
    finally:
        stop.set()
        loading.join(SECONDS)
    assert heard == list(range(start["seq"] + 1, start["seq"] + 1 + len(heard)))
    page = http.get("/api/cluster/history", params={"epoch": start["epoch"], "after": start["seq"]}).json()
    assert [event["seq"] for event in page["events"]][: len(heard)] == heard
    assert http.post(f"{METRICS}/reset").status_code == 200


def test_after_two_hundred_streams_that_came_and_went_nothing_is_left(
    daemon: Daemon, http: httpx.Client
) -> None:
    wait_until(lambda: not clients(http))
    token = daemon.token()
    host, port = daemon.address.rsplit(":", 1)
    request = (
        f"GET {EVENTS} HTTP/1.1\r\nHost: {daemon.address}\r\nAuthorization: Bearer {token}\r\n\r\n"
        "GET /healthz HTTP/1.1\r\nHost: pipelined\r\n\r\n"
    )
    before = daemon.descriptors()
    with ExitStack() as until_closed:
        sockets = []
        for _ in range(MANY):
            socket = stdlib.create_connection((host, int(port)), SECONDS)
            until_closed.callback(socket.close)
            socket.sendall(request.encode())
            sockets.append(socket)
        wait_until(lambda: len(clients(http)) == MANY)
        register(http, "for_many")
        for socket in sockets:
            heard = b""
            while b"for_many" not in heard:
                heard += socket.recv(65536)
    wait_until(lambda: not clients(http))
    wait_until(lambda: daemon.descriptors() <= before)
    assert http.delete(METRICS, params={"name": "for_many"}).status_code == 200


def test_a_logout_ends_the_stream_that_came_by_a_ticket_of_that_token(
    daemon: Daemon, http: httpx.Client
) -> None:
    with daemon.client("viewer") as viewer:
        stream = Stream(f"{daemon.url}{EVENTS}?types=status&ticket={ticket(viewer)}")
        dead = ticket(viewer)
        assert stream.next() is not None
        assert viewer.post("/api/auth/logout").status_code == 200
        assert stream.next() == {"": "4401 token revoked"}
        assert stream.next() is None
        stream.close()
    assert httpx.get(f"{daemon.url}{EVENTS}?ticket={dead}", timeout=SECONDS, verify=False).status_code == 401


def test_a_ticket_opens_one_socket(daemon: Daemon, http: httpx.Client) -> None:
    url = f"ws://{daemon.address}/ws/cluster?ticket={ticket(http)}"
    with closing_connection(url, {}) as socket:
        receive(socket, "status")
        with pytest.raises(InvalidStatus) as again, closing_connection(url, {}):
            pass
        assert (again.value.response.status_code, again.value.response.body) == (
            401,
            b'{"error":"Invalid token"}\n',
        )
        (client,) = clients(http)
        assert http.delete("/api/cluster/clients", params={"id": client["id"]}).status_code == 200
        assert close_code(socket) == 4000


@pytest.mark.parametrize(
    ("query", "bearer", "status"),
    [
        ("ticket={ticket}", "{token}", 101),
        ("ticket={ticket}", "{other}", 400),
        ("ticket={ticket}&token={other}", None, 400),
        ("ticket={ticket}&ticket={ticket}", None, 400),
        ("ticket={token}", None, 401),
        ("token={ticket}", None, 401),
        ("", "{ticket}", 401),
        ("ticket={ticket}&after=1", None, 400),
    ],
)
def test_a_ticket_and_what_stands_beside_it(
    daemon: Daemon, http: httpx.Client, query: str, bearer: str | None, status: int
) -> None:
    words = {
        "ticket": ticket(http),
        "token": http.headers["Authorization"].removeprefix("Bearer "),
        "other": daemon.token(),
    }
    url = f"ws://{daemon.address}/ws/cluster?{query.format(**words)}"
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer.format(**words)}"}
    try:
        with closing_connection(url, {"additional_headers": headers}) as socket:
            assert (receive(socket, "status")["type"], status) == ("status", 101)
    except InvalidStatus as refused:
        assert refused.response.status_code == status  # noqa: PT017
    if query.startswith("ticket={ticket}"):  # whatever came of it, it is spent
        with (
            pytest.raises(InvalidStatus, match="401"),
            closing_connection(f"ws://{daemon.address}/ws/cluster?ticket={words['ticket']}", {}),
        ):
            pass


def test_no_ticket_is_in_the_log(tmp_path: Path) -> None:
    used = []
    with running(tmp_path) as daemon, daemon.client() as http:
        for path in (EVENTS, "/ws/cluster", "/nowhere", "/api/cluster/status"):
            for extra in ("", "&after=wrong"):
                used.append(ticket(http))
                with httpx.stream(
                    "GET", f"{daemon.url}{path}?ticket={used[-1]}{extra}", timeout=SECONDS, verify=False
                ):
                    pass
        with closing_connection(f"ws://{daemon.address}/ws/cluster?ticket={ticket(http)}", {}) as socket:
            receive(socket, "status")
        assert daemon.stop() == 0
        assert not [secret for secret in used if secret in "".join(daemon.raw)]


def test_on_sigterm_the_streams_end_and_the_exit_code_is_0(tmp_path: Path) -> None:
    with running(tmp_path, websocket="status_interval = 0.05") as daemon, ExitStack() as until_closed:
        streams = [until_closed.enter_context(streaming(daemon)) for _ in range(20)]
        for stream in streams:
            assert stream.next() is not None
        began = time.monotonic()
        assert daemon.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < at_most(4)
        for stream in streams:
            blocks = []
            while (block := stream.next()) is not None:
                blocks.append(block)
            assert blocks[-1] == {"": "1001 the daemon is stopping"}
        assert [line for line in daemon.lines if line.get("level") == "error"] == []
