"""SIGTERM, SIGHUP and a second signal, from the outside.

The short form runs in `make test`, the long one in `make prove-stop`: 1,000 clients, STOPS times (20).
"""

from __future__ import annotations

import os
import select
import signal
import socket as stdlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection

from tests.support.daemon_process import (
    Daemon,
    logging_process,
    messages_until_closed,
    receive,
    running,
    wait_until,
    write_config,
)
from tests.support.deadlines import SECONDS, at_most
from tests.support.engines import on_both_engines
from tests.support.event_load import METRICS, EventLoad
from tests.support.raw_client import RawClient, closing
from tests.support.wire import CLOSE, TEXT, masked

SECRET = b"0123456789abcdef" * 4


def open_many(daemon: Daemon, count: int, until_closed: ExitStack) -> list[ClientConnection]:
    token = daemon.token()
    return [
        until_closed.enter_context(daemon.connect(token, max_queue=None, ping_interval=None))
        for _ in range(count)
    ]


def never_reading(daemon: Daemon, token: str) -> stdlib.socket:
    """A client that asks for the upgrade and then never reads a byte."""
    host, port = daemon.address.rsplit(":", 1)
    socket = stdlib.socket()
    socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 4096)
    socket.connect((host, int(port)))
    socket.sendall(
        f"GET /ws/cluster?token={token} HTTP/1.1\r\nHost: {daemon.address}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return socket


def refused(daemon: Daemon) -> bool:
    host, port = daemon.address.rsplit(":", 1)
    try:
        stdlib.create_connection((host, int(port)), SECONDS).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it was waiting to be accepted when the listening socket was closed
    return False


def connected(http: httpx.Client) -> list[dict[str, Any]]:
    return list(http.get("/api/cluster/clients").json()["clients"])


def stop_once(folder: Path, clients: int, mute: int, grace: float, fanout: str) -> None:
    engine = f'fanout = "{fanout}"'
    with (
        running(folder, server=f"shutdown_grace = {grace}", websocket=engine) as daemon,
        ExitStack() as until_closed,
    ):
        token = daemon.token()
        mutes = [never_reading(daemon, token) for _ in range(mute)]
        healthy = open_many(daemon, clients - mute, until_closed)
        with daemon.client() as http:
            wait_until(lambda: len(connected(http)) == clients)
            # The clients that never read have to be behind, or there would be nothing to wait for.
            for number in range(200):
                filler = {"name": f"filler_{number}", "type": "gauge", "help": "x" * 4000}
                assert http.post("/api/cluster/custom-metrics", json=filler).status_code == 201
                if sum(client["queue"] > 0 for client in connected(http)) >= mute:
                    break
            else:
                raise AssertionError("the clients that never read did not fall behind")
            last = {"name": "last", "type": "gauge"}
            assert http.post("/api/cluster/custom-metrics", json=last).status_code == 201
        heard: dict[int, tuple[list[dict[str, Any]], int | None]] = {}

        def listen(number: int, socket: ClientConnection) -> None:
            heard[number] = messages_until_closed(socket)

        listeners = [
            threading.Thread(target=listen, args=(number, socket)) for number, socket in enumerate(healthy)
        ]
        for listener in listeners:
            listener.start()
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < at_most(grace + 1)
        for listener in listeners:
            listener.join(SECONDS)
        assert len(heard) == clients - mute
        for messages, code in heard.values():
            assert code == 1001
            assert any("last" in m["data"] for m in messages if m["type"] == "custom_metrics" and "seq" in m)
        for socket in mutes:
            socket.close()
        assert [line for line in daemon.lines if line.get("level") == "error"] == []


@on_both_engines
def test_on_sigterm_each_healthy_client_gets_its_queue_and_1001_and_the_exit_code_is_0(
    tmp_path: Path, fanout: str
) -> None:
    stop_once(tmp_path, clients=20, mute=2, grace=8.0, fanout=fanout)


@dataclass
class Heard:
    """What a healthy client got."""

    last: bool = False
    """The event of the last write before the signal."""
    code: int | None = None
    closed_at: float = inf


class Listeners:
    """Clients that read all that comes, in one thread, and answer the close."""

    def __init__(self, clients: list[RawClient]) -> None:
        self.heard = {client: Heard() for client in clients}
        self._thread = threading.Thread(target=self._read, args=(clients,))
        self._thread.start()

    def _read(self, clients: list[RawClient]) -> None:
        poll, open_ones = select.poll(), {client.socket.fileno(): client for client in clients}
        for descriptor in open_ones:
            poll.register(descriptor, select.POLLIN)
        while open_ones:
            for descriptor, _ in poll.poll():
                if not self._read_one(open_ones[descriptor]):
                    poll.unregister(descriptor)
                    open_ones.pop(descriptor).socket.close()

    def _read_one(self, client: RawClient) -> bool:
        data = client.socket.recv(262_144)
        heard = self.heard[client]
        for frame in client.frames.feed(data):
            if frame.opcode == CLOSE:
                heard.code, heard.closed_at = frame.close_code, time.monotonic()
                client.send(masked(CLOSE, frame.payload))
                return False
            heard.last = heard.last or (frame.opcode == TEXT and b'"last":{' in frame.payload[:200])
        return bool(data)

    def wait(self) -> list[Heard]:
        self._thread.join(2 * SECONDS)
        return list(self.heard.values())


def fall_behind(daemon: Daemon, http: httpx.Client, mute: int) -> None:
    """Until all that never read are behind: without that there would be nothing to wait for."""
    load = EventLoad(daemon.address, daemon.token(), 0.0)
    for number in range(200):
        large = {"name": f"filler_{number}", "type": "gauge", "help": "x" * 4000}
        assert load.ask("POST", METRICS, large) == 201
        if number % 10 == 9 and sum(client["queue"] > 0 for client in connected(http)) >= mute:
            return
    raise AssertionError("the clients that never read did not fall behind")


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(int(os.environ.get("STOPS", "20"))))
def test_on_sigterm_with_1000_clients_of_which_100_never_read(tmp_path: Path, attempt: int) -> None:
    clients, mute, grace = 1000, 100, 5.0
    server = f"shutdown_grace = {grace}"
    with running(tmp_path, server=server) as daemon, closing([]) as opened:
        token = daemon.token()
        for number in range(clients):
            opened.append(RawClient(daemon, token, receive_buffer=4096 if number < mute else None))
            opened[-1].wait_upgraded()
        listeners = Listeners(opened[mute:])
        with daemon.client() as http:
            wait_until(lambda: len(connected(http)) == clients)
            fall_behind(daemon, http, mute)
            assert http.post(METRICS, json={"name": "last", "type": "gauge"}).status_code == 201
        began = time.monotonic()
        assert daemon.stop() == 0
        ended = time.monotonic() - began
        heard = listeners.wait()
        slowest = max(each.closed_at for each in heard) - began
        print(f"stop {attempt + 1}: 1001 after {slowest:.2f} s at most, ended after {ended:.2f} s")
        assert [each for each in heard if not each.last or each.code != 1001] == []
        assert slowest < at_most(2)
        assert ended < at_most(grace + 1)
        assert [line for line in daemon.lines if line.get("level") == "error"] == []


def test_with_no_client_the_daemon_stops_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        began = time.monotonic()
        assert daemon.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < at_most(2)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with running(tmp_path, server="shutdown_grace = 30.0") as daemon:
        # A request whose body never comes keeps the first stop waiting.
        host, port = daemon.address.rsplit(":", 1)
        with stdlib.create_connection((host, int(port)), SECONDS) as socket:
            socket.sendall(
                f"POST /api/auth/login HTTP/1.1\r\nHost: {daemon.address}\r\nContent-Length: 10\r\n\r\n".encode()
            )
            wait_until(
                lambda: httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200
            )
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_logged(lambda line: line["event"] == "stopping")
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(at_most(5)) == 0
        daemon.wait_logged(lambda line: "second signal" in line["event"])


def test_a_stopped_daemon_refuses_new_connections_while_it_drains(tmp_path: Path) -> None:
    patient = "status_interval = 0.01\nwrite_timeout = 30.0"
    with running(tmp_path, server="shutdown_grace = 30.0", websocket=patient) as daemon:
        token = daemon.token()
        mute = never_reading(daemon, token)
        with daemon.client() as http:
            wait_until(
                lambda: any(c["queue"] > 0 for c in http.get("/api/cluster/clients").json()["clients"])
            )
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_logged(lambda line: line["event"] == "stopping")
        wait_until(lambda: refused(daemon))
        assert daemon.process.poll() is None  # it drains: one client has not taken its queue
        mute.close()
        assert daemon.process.wait(at_most(5)) == 0


def test_sighup_puts_a_changed_file_in_force_for_open_sockets_too(tmp_path: Path) -> None:
    with (
        running(tmp_path, websocket="status_interval = 60.0") as daemon,
        daemon.connect(daemon.token()) as socket,
    ):
        receive(socket, "status")
        daemon.config.write_text(
            daemon.config.read_text(encoding="utf-8").replace(
                "status_interval = 60.0", "status_interval = 0.05"
            ),
            encoding="utf-8",
        )
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_logged(lambda line: line["event"] == "configuration reloaded")
        receive(socket, "status_update")


def wait_not_reloaded(daemon: Daemon, reason: str) -> None:
    daemon.wait_logged(lambda line: "not reloaded" in line["event"] and reason in line["reason"])


def test_sighup_with_a_broken_file_changes_nothing_and_says_why(tmp_path: Path) -> None:
    reasons = {
        "[node": "not TOML",
        '[node]\nidd = "x"': "node.idd",
        "[websocket]\nsend_buffer = -1": "websocket.send_buffer",
        None: "No such file",
    }
    with running(tmp_path) as daemon, daemon.connect(daemon.token()) as socket:
        for broken, reason in reasons.items():
            if broken is None:
                daemon.config.unlink()
            else:
                daemon.config.write_text(broken, encoding="utf-8")
            for _ in range(5):
                daemon.process.send_signal(signal.SIGHUP)
            wait_not_reloaded(daemon, reason)
            assert daemon.token()  # the users of the old file
            socket.send('{"type":"ping"}')
            receive(socket, "pong")


def test_a_reload_that_hangs_in_a_file_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.config.unlink()
        os.mkfifo(daemon.config)
        daemon.process.send_signal(signal.SIGHUP)
        writer = waiting_reader(daemon.config)
        try:
            assert daemon.stop() == 0
        finally:
            os.close(writer)


def waiting_reader(pipe: Path) -> int:
    """Open this named pipe for writing once somebody reads it."""
    writer: list[int] = []

    def opened() -> bool:
        with suppress(OSError):  # nobody reads it yet
            writer.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writer)

    wait_until(opened)
    return writer[0]


@contextmanager
def signalled_while_it_starts(folder: Path, number: int) -> Iterator[Daemon]:
    """A daemon that got this signal while it read its key; it goes on."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    key = state / "jwt_secret"
    os.mkfifo(key, 0o600)
    config = write_config(folder)
    command = [sys.executable, "-m", "heliosd", "serve", "--config", str(config)]
    with logging_process(command, config, {"STATE_DIRECTORY": str(state)}) as daemon:
        writer = waiting_reader(key)
        daemon.process.send_signal(number)
        key.unlink()
        key.write_bytes(SECRET)  # a reload reads it again
        key.chmod(0o600)
        with suppress(BrokenPipeError):  # the signal has ended it
            os.write(writer, SECRET)
        os.close(writer)
        yield daemon


def test_sighup_before_the_daemon_listens_is_a_reload_once_it_does(tmp_path: Path) -> None:
    with signalled_while_it_starts(tmp_path, signal.SIGHUP) as daemon:
        daemon.wait_listening()
        daemon.wait_logged(lambda line: line["event"] == "configuration reloaded")
        assert daemon.stop() == 0


def test_sigterm_before_the_daemon_listens_is_a_clean_stop(tmp_path: Path) -> None:
    with signalled_while_it_starts(tmp_path, signal.SIGTERM) as daemon:
        assert daemon.process.wait(SECONDS) == 0
        daemon.wait_logged(lambda line: line["event"] == "stopped")
