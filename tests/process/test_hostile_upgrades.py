"""Upgrades that no route takes, and other requests of other protocols: 4xx, and the daemon goes on.

That no upgrade reaches the app is shown in tests/edges/test_asgi.py.

The short form runs in `make test`, the long one in `make prove-front`.
"""

from __future__ import annotations

import os
import socket as stdlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import Daemon, running, wait_until
from tests.support.deadlines import SECONDS

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CLEAN = "GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"

REFUSED = {
    "a path without a route": UPGRADE.replace("{path}", "/nowhere"),
    "a REST path": UPGRADE.replace("{path}", "/api/cluster/status"),
    "the WebSocket path without a token": UPGRADE.replace("{path}", "/ws/cluster"),
    "a doubled slash": UPGRADE.replace("{path}", "//ws/cluster"),
    "an encoded slash": UPGRADE.replace("{path}", "/ws%2fcluster"),
    "a slash at the end": UPGRADE.replace("{path}", "/ws/cluster/"),
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n",
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("daemon")) as started:
        yield started


def answer(daemon: Daemon, request: str) -> bytes:
    """All that comes back until the daemon closes."""
    host, port = daemon.address.rsplit(":", 1)
    text = request.replace("{host}", daemon.address)
    with stdlib.create_connection((host, int(port)), SECONDS) as socket:
        socket.sendall(text.encode("latin-1"))
        received = b""
        while piece := socket.recv(65_536):
            received += piece
    return received


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_answered_with_4xx_and_the_daemon_goes_on(daemon: Daemon, name: str) -> None:
    for _ in range(5):
        status = int(answer(daemon, REFUSED[name]).split(b" ", 2)[1])
        assert 400 <= status < 500
    assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200


def test_an_upgrade_behind_another_request_is_not_accepted(daemon: Daemon) -> None:
    for path in ("/nowhere", "/ws/cluster"):
        received = answer(daemon, CLEAN + UPGRADE.replace("{path}", path))
        assert received.startswith(b"HTTP/1.1 200 ")
        assert received.count(b"HTTP/1.1") == 2
        assert b"HTTP/1.1 4" in received
    assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200


def send_many(daemon: Daemon, count: int) -> None:
    assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200
    before = daemon.descriptors()
    requests = list(REFUSED.values())
    for number in range(count):
        assert answer(daemon, requests[number % len(requests)])[:10] == b"HTTP/1.1 4"
    wait_until(lambda: daemon.descriptors() <= before)
    os.kill(daemon.pid, 0)
    assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200
    assert not [line for line in daemon.lines if line.get("level") in {"error", "critical"}]


def test_a_hundred_of_them_change_nothing(daemon: Daemon) -> None:
    send_many(daemon, 100)


@pytest.mark.slow
def test_a_thousand_of_them_change_nothing(daemon: Daemon) -> None:
    send_many(daemon, 1000)


def test_the_data_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        assert daemon.stop() == 0
    state = tmp_path / "state"
    assert state.stat().st_mode & 0o777 == 0o700
    assert {
        entry.name: entry.stat().st_mode & 0o77 for entry in state.iterdir() if entry.stat().st_mode & 0o77
    } == {}
