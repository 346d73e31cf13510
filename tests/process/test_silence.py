"""Clients that send nothing, plain and over TLS: those that answer pings stay, the others are closed in time."""

from __future__ import annotations

import os
import signal
import socket as stdlib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import pytest

from tests.support.certificates import self_signed
from tests.support.daemon_process import Daemon, running, wait_until
from tests.support.deadlines import SECONDS, at_most
from tests.support.raw_client import RawClient
from tests.support.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frames, masked, upgrade

READ_TIMEOUT = 1.5
PING_INTERVAL = 0.3
LINGER_SECONDS = 2.0
"""How long a client may take to answer our close frame and close: a second each."""
SLACK_SECONDS = 1.0
"""What a busy machine may add to a deadline."""


class Silent(RawClient):
    """A client that sends nothing by itself, also over TLS."""

    def __init__(self, daemon: Daemon, token: str, tls: ssl.SSLContext | None) -> None:
        host, port = daemon.address.rsplit(":", 1)
        self.socket = stdlib.create_connection((host, int(port)), SECONDS)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self.frames = Frames()
        self.send(upgrade(daemon.address, token))
        self.wait_upgraded()

    def leave(self) -> None:
        """Send a close frame and read to the end."""
        self.send(masked(CLOSE, b""))
        self.wait_for(lambda frame: frame.opcode == CLOSE)
        assert list(self.read_frames()) == []

    def is_cut(self) -> bool:
        """The daemon has closed the connection in both directions."""
        try:
            self.send(masked(PONG, b""))
        except OSError:
            return True
        return False

    def answer_pings(self, seconds: float) -> int:
        """Only answer pings, for so long; returns how many there were. Fails if the daemon sends a close frame."""
        until, pings = time.monotonic() + seconds, 0
        for frame in self.read_frames():
            assert frame.opcode != CLOSE
            if frame.opcode == PING:
                pings += 1
                self.send(masked(PONG, frame.payload))
                if time.monotonic() > until:
                    return pings
        raise AssertionError("the connection ended")


class Served(NamedTuple):
    """A daemon with short deadlines, and what is needed to connect to it."""

    daemon: Daemon
    tls: ssl.SSLContext | None
    token: str
    http: httpx.Client

    def clients(self) -> list[str]:
        return [client["id"] for client in self.http.get("/api/cluster/clients").json()["clients"]]

    @contextmanager
    def one_client(self) -> Iterator[Silent]:
        """A client that must be gone from the daemon two seconds after its close frame, which ends the block."""
        wait_until(lambda: not self.clients())
        with Silent(self.daemon, self.token, self.tls) as client:
            yield client
            ended = time.monotonic()
            wait_until(client.is_cut)
            assert time.monotonic() - ended < at_most(LINGER_SECONDS + SLACK_SECONDS)
            wait_until(lambda: not self.clients())


@pytest.fixture(
    scope="module", params=[False, pytest.param(True, marks=pytest.mark.extended)], ids=["plain", "tls"]
)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("daemon")
    server, tls = "", None
    if request.param:
        cert, key = self_signed(folder)
        server = f'tls_cert = "{cert}"\ntls_key = "{key}"'
        tls = ssl.create_default_context(cafile=str(cert))
    timing = f"read_timeout = {READ_TIMEOUT}\nping_interval = {PING_INTERVAL}\nstatus_interval = 0.1"
    with running(folder, server=server, websocket=timing) as daemon, daemon.client() as http:
        yield Served(daemon, tls, daemon.token(), http)
        assert daemon.stop() == 0
        assert not [line for line in daemon.lines if line.get("level") == "error"]


def test_a_silent_client_is_closed_with_1001(served: Served) -> None:
    began = time.monotonic()
    with served.one_client() as client:
        code, _ = client.ending()
        assert code == 1001
        assert READ_TIMEOUT - 0.1 < time.monotonic() - began < at_most(READ_TIMEOUT + SLACK_SECONDS)


def test_a_client_that_only_answers_pings_stays(served: Served) -> None:
    with served.one_client() as client:
        assert client.answer_pings(3 * READ_TIMEOUT) > 3
        client.send(masked(TEXT, b'{"type":"ping"}'))
        client.wait_for_message("pong")
        client.leave()


def test_a_client_that_stops_answering_pings_is_closed_counting_from_then(served: Served) -> None:
    with served.one_client() as client:
        client.answer_pings(READ_TIMEOUT)
        began = time.monotonic()
        code, _ = client.ending()
        assert code == 1001
        assert READ_TIMEOUT - 0.1 < time.monotonic() - began < at_most(READ_TIMEOUT + SLACK_SECONDS)


def test_a_client_that_answers_pings_within_a_message_stays_and_may_end_it(served: Served) -> None:
    with served.one_client() as client:
        client.send(masked(TEXT, b'{"type":', fin=False))
        client.answer_pings(1.5 * READ_TIMEOUT)
        client.send(masked(CONTINUATION, b'"ping"}'))
        client.wait_for_message("pong")
        client.leave()


@pytest.mark.extended
def test_a_client_stays_when_the_daemon_itself_was_stopped_for_longer_than_read_timeout(
    served: Served,
) -> None:
    with served.one_client() as client:
        os.kill(served.daemon.pid, signal.SIGSTOP)
        try:
            time.sleep(1.5 * READ_TIMEOUT)  # the time is the fault
        finally:
            os.kill(served.daemon.pid, signal.SIGCONT)
        client.answer_pings(READ_TIMEOUT)
        client.leave()


def test_a_client_that_sends_a_message_byte_by_byte_stays(served: Served) -> None:
    text = masked(TEXT, b'{"type":"ping"}')
    with served.one_client() as client:
        for number in range(len(text)):
            client.wait_for_message("status_update")
            client.send(text[number : number + 1])
        client.wait_for_message("pong")
        client.leave()


@pytest.mark.parametrize("reason", ["a fault", "an administrator"])
def test_a_client_that_does_not_answer_our_close_frame_is_cut_within_two_seconds(
    served: Served, reason: str
) -> None:
    with served.one_client() as client:
        if reason == "a fault":
            client.send(masked(BINARY, b"binary"))
        else:
            (mine,) = served.clients()
            assert served.http.delete("/api/cluster/clients", params={"id": mine}).status_code == 200
        client.wait_for(lambda frame: frame.close_code == (1003 if reason == "a fault" else 4000))


def test_a_client_that_answers_our_close_frame_is_closed_at_once(served: Served) -> None:
    with served.one_client() as client:
        (mine,) = served.clients()
        assert served.http.delete("/api/cluster/clients", params={"id": mine}).status_code == 200
        close = client.wait_for(lambda frame: frame.opcode == CLOSE)
        client.send(masked(CLOSE, close.payload))
        began = time.monotonic()
        assert list(client.read_frames()) == []
        assert time.monotonic() - began < at_most(0.5)
