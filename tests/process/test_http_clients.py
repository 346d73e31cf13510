"""HTTP clients of other people at a started daemon: keep-alive, chunks, h2c, half-closed connections."""

from __future__ import annotations

import socket as stdlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon_process import Daemon, running
from tests.support.deadlines import SECONDS

STATUS = "/api/cluster/status"
METRICS = "/api/cluster/custom-metrics"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("daemon")) as started:
        yield started
        assert not [line for line in started.lines if line.get("level") in {"error", "critical"}]


def half_closed(daemon: Daemon, request: str, body: str = "") -> bytes:
    """Sends a request, ends this side at once, and returns all that comes."""
    host, port = daemon.address.rsplit(":", 1)
    lines = (
        f"Host: {daemon.address}\r\nAuthorization: Bearer {daemon.token()}\r\nContent-Length: {len(body)}\r\n"
    )
    with stdlib.create_connection((host, int(port)), SECONDS) as socket:
        socket.sendall(f"{request} HTTP/1.1\r\n{lines}\r\n{body}".encode())
        socket.shutdown(stdlib.SHUT_WR)
        received = b""
        while piece := socket.recv(65_536):
            received += piece
    return received


def test_200_of_200_half_closed_clients_get_their_whole_answer(daemon: Daemon) -> None:
    for number in range(100):
        head, _, body = half_closed(daemon, f"GET {STATUS}").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert f"content-length: {len(body)}".encode() in head.lower()
        name = f"half_closed_{number}"
        made = half_closed(daemon, f"POST {METRICS}", f'{{"name":"{name}","type":"gauge"}}')
        assert made.startswith(b"HTTP/1.1 201 ")
        assert name.encode() in made
    with daemon.client() as http:
        assert http.post(f"{METRICS}/reset").status_code == 200


def test_one_connection_serves_many_requests(daemon: Daemon) -> None:
    with daemon.client() as http:
        ports = set()
        for _ in range(50):
            answer = http.get(STATUS)
            assert answer.status_code == 200
            assert "connection" not in answer.headers
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(ports) == 1, "it was never closed, and httpx never had to connect anew"


def test_a_chunked_body_is_taken(daemon: Daemon) -> None:
    with daemon.client() as http:
        pieces = iter([b'{"name":"in_chunks",', b'"type":"gauge"}'])
        headers = {"Content-Type": "application/json"}
        assert http.post(METRICS, content=pieces, headers=headers).status_code == 201
        assert http.delete(METRICS, params={"name": "in_chunks"}).status_code == 200


@pytest.mark.needs("curl")
def test_curl_that_offers_http_2_gets_http_1_1(daemon: Daemon) -> None:
    command = ["curl", "-s", "--http2", "-w", " %{http_code} %{http_version} %{num_connects}"]
    done = subprocess.run(
        [*command, f"{daemon.url}/healthz", f"{daemon.url}/healthz"],
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    assert done.stdout.count(b" 200 1.1 ") == 2
    assert done.stdout.endswith(b" 200 1.1 0")  # on the connection of the first


def test_head_of_the_event_stream_has_no_length_and_no_body(daemon: Daemon) -> None:
    answer = half_closed(daemon, "HEAD /api/cluster/events").lower()
    assert answer.startswith(b"http/1.1 200 ")
    assert b"content-type: text/event-stream" in answer
    assert b"content-length" not in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "request_",
    [
        "GET http://{host}/healthz HTTP/1.1\r\nHost: {host}\r\n",
        "\r\nGET /healthz HTTP/1.1\r\nHost: {host}\r\n",
        "GET /healthz HTTP/1.2\r\nHost: {host}\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost:\r\n",
        "GET /healthz HTTP/1.0\r\n",
        "GET /healthz HTTP/1.1\r\nHost: {host}\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "GET /healthz HTTP/1.1\r\nHost: {host}\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    ],
)
def test_what_is_valid_if_unusual_is_served(daemon: Daemon, request_: str) -> None:
    host, port = daemon.address.rsplit(":", 1)
    with stdlib.create_connection((host, int(port)), SECONDS) as socket:
        socket.sendall(f"{request_.format(host=daemon.address)}\r\n".encode())
        socket.shutdown(stdlib.SHUT_WR)
        assert socket.makefile("rb").read().startswith(b"HTTP/1.1 200 ")


def test_an_own_page_may_write_also_where_host_ends_in_a_colon(daemon: Daemon) -> None:
    body = '{"name":"by_page","type":"gauge"}'
    host, port = daemon.address.rsplit(":", 1)
    lines = f"Host: localhost:\r\nOrigin: http://localhost\r\nAuthorization: Bearer {daemon.token()}\r\n"
    with stdlib.create_connection((host, int(port)), SECONDS) as socket:
        text = f"POST {METRICS} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}"
        socket.sendall(text.encode())
        socket.shutdown(stdlib.SHUT_WR)
        assert socket.makefile("rb").read().startswith(b"HTTP/1.1 201 ")
