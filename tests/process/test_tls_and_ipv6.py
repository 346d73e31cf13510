"""HTTPS and WSS with a certificate of our own, and a daemon that listens on IPv6."""

from __future__ import annotations

import json
import signal
import socket as stdlib
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import ClientConnection

from tests.support.certificates import self_signed
from tests.support.daemon_process import Daemon, lacking, receive, running, wait_until
from tests.support.deadlines import SECONDS

METRICS = "/api/cluster/custom-metrics"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    cert, key = self_signed(folder)
    with running(
        folder, server=f'tls_cert = "{cert}"\ntls_key = "{key}"', websocket="write_timeout = 60.0"
    ) as started:
        yield started


@pytest.fixture
def trusting(daemon: Daemon, folder: Path) -> ssl.SSLContext:
    """A client's context that trusts this daemon's certificate only."""
    return ssl.create_default_context(cafile=str(folder / "cert.pem"))


def plain_connection(daemon: Daemon) -> stdlib.socket:
    host, port = daemon.address.rsplit(":", 1)
    return stdlib.create_connection((host, int(port)), SECONDS)


def events_up_to(socket: ClientConnection, last: str) -> list[tuple[int, str]]:
    """(seq, metric) of each registration, up to that of `last`."""
    received: list[tuple[int, str]] = []
    while not received or received[-1][1] != last:
        message = receive(socket, "custom_metrics")
        if "seq" in message:
            received.extend((message["seq"], name) for name in message["data"])
    return received


def test_https_serves_a_client_that_verifies_the_certificate(
    daemon: Daemon, trusting: ssl.SSLContext
) -> None:
    assert daemon.url.startswith("https://")
    with httpx.Client(base_url=daemon.url, verify=trusting, timeout=SECONDS) as http:
        assert http.get("/healthz").status_code == 200
        headers = {"Authorization": f"Bearer {daemon.token('viewer')}"}
        assert http.get("/api/cluster/status", headers=headers).json()["tls"]["enabled"] is True


def test_a_client_that_does_not_trust_the_certificate_does_no_harm(daemon: Daemon) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(f"{daemon.url}/healthz", timeout=SECONDS)
    assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200


def test_wss_sends_status_and_answers_pings(daemon: Daemon, trusting: ssl.SSLContext) -> None:
    with daemon.connect(daemon.token(), ssl=trusting) as socket:
        assert json.loads(socket.recv(SECONDS))["type"] == "status"
        socket.send('{"type":"ping","data":"over TLS"}')
        assert receive(socket, "pong")["data"] == "over TLS"


def test_alpn_settles_on_http_1_1_also_where_h2_is_preferred(daemon: Daemon, folder: Path) -> None:
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with context.wrap_socket(plain_connection(daemon), server_hostname="127.0.0.1") as socket:
        assert socket.selected_alpn_protocol() == "http/1.1"
        assert socket.version() in {"TLSv1.2", "TLSv1.3"}


@pytest.mark.parametrize(
    "sent", [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 99, b""]
)
def test_bytes_that_are_not_tls_do_no_harm(daemon: Daemon, sent: bytes) -> None:
    with plain_connection(daemon) as socket:
        socket.sendall(sent)
        socket.shutdown(stdlib.SHUT_WR)
        received = b""
        while piece := socket.recv(4096):
            received += piece
    assert b"HTTP/" not in received  # at most an alert of TLS
    assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200


def never_reading(daemon: Daemon, context: ssl.SSLContext, token: str) -> ssl.SSLSocket:
    """A client that asks for the upgrade and then never reads a byte."""
    host, port = daemon.address.rsplit(":", 1)
    raw = stdlib.socket()
    raw.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 4096)
    raw.settimeout(SECONDS)
    raw.connect((host, int(port)))
    socket = context.wrap_socket(raw, server_hostname=host)
    socket.sendall(
        f"GET /ws/cluster?token={token} HTTP/1.1\r\nHost: {daemon.address}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return socket


@pytest.mark.extended
def test_sixty_wss_clients_get_every_event_in_order_while_one_never_reads(
    daemon: Daemon, trusting: ssl.SSLContext
) -> None:
    token = daemon.token()
    names = [f"tls_{number}" for number in range(60)]
    with ExitStack() as until_closed, daemon.client() as http:
        mute = until_closed.enter_context(closing(never_reading(daemon, trusting, daemon.token("viewer"))))
        clients = [
            until_closed.enter_context(
                daemon.connect(token, ssl=trusting, max_queue=None, ping_interval=None)
            )
            for _ in range(60)
        ]

        def slow_one() -> dict[str, int]:
            (view,) = (c for c in http.get("/api/cluster/clients").json()["clients"] if c["user"] == "viewer")
            return dict(view)

        wait_until(lambda: http.get("/api/cluster/clients").json()["total"] == 61)
        for name in names:
            answer = http.post(METRICS, json={"name": name, "type": "gauge", "help": "x" * 4000})
            assert answer.status_code == 201, answer.text
        for client in clients:
            received = events_up_to(client, names[-1])
            assert [name for _, name in received] == names
            seqs = [seq for seq, _ in received]
            assert seqs == list(range(seqs[0], seqs[0] + len(names)))
        # The slow one was still connected, and behind, when the others had everything.
        assert slow_one()["queue"] > 0
        assert mute.fileno() >= 0


def test_a_handshake_that_never_comes_delays_no_other_client(daemon: Daemon) -> None:
    with ExitStack() as until_closed:
        for _ in range(20):
            until_closed.enter_context(plain_connection(daemon))
        assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200


def test_a_renewed_certificate_is_served_and_open_connections_stay(
    daemon: Daemon, trusting: ssl.SSLContext, folder: Path
) -> None:
    with daemon.connect(daemon.token(), ssl=trusting) as socket:
        self_signed(folder)
        renewed = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        daemon.process.send_signal(signal.SIGHUP)
        line = daemon.wait_logged(lambda line: line["event"] == "certificate renewed")
        assert line["cert"] == str(folder / "cert.pem")
        assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=renewed).status_code == 200
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=trusting)
        self_signed(folder)  # and without a signal, once a second
        wait_until(lambda: sum(line["event"] == "certificate renewed" for line in daemon.lines) == 2)
        socket.send('{"type":"ping"}')
        receive(socket, "pong")


def test_nothing_in_all_of_that_was_an_error_of_the_daemon(daemon: Daemon) -> None:
    assert [line for line in daemon.lines if line.get("level") in {"error", "critical"}] == []
    assert daemon.stop() == 0


@pytest.fixture(scope="module")
def daemon_v6(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    try:
        stdlib.create_server(("::1", 0), family=stdlib.AF_INET6).close()
    except OSError as error:
        lacking(f"this machine has no IPv6 loopback: {error}")
    with running(tmp_path_factory.mktemp("v6"), listen="[::1]:0") as started:
        yield started


def test_the_ready_line_names_the_ipv6_address_with_its_real_port(daemon_v6: Daemon) -> None:
    host, port = daemon_v6.address.rsplit(":", 1)
    assert host == "[::1]"
    assert int(port) > 0


def test_http_and_websocket_work_over_ipv6(daemon_v6: Daemon) -> None:
    with daemon_v6.client() as http, daemon_v6.connect(daemon_v6.token()) as socket:
        assert json.loads(socket.recv(SECONDS))["type"] == "status"
        assert http.post(METRICS, json={"name": "six", "type": "gauge"}).status_code == 201
        assert "six" in receive(socket, "custom_metrics")["data"]
        (client,) = http.get("/api/cluster/clients").json()["clients"]
        assert client["address"].startswith("[::1]:")
    with daemon_v6.connect(daemon_v6.token(), origin=daemon_v6.url) as socket:
        assert json.loads(socket.recv(SECONDS))["type"] == "status"
