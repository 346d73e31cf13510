"""permessage-deflate (RFC 7692) with clients that support it: `websockets` and Node's ws.

Chromium is in test_dashboard.py, and what bombs do in test_bad_clients.py.
"""

from __future__ import annotations

import json
import socket as stdlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from tests.support.daemon_process import Daemon, receive, running
from tests.support.deadlines import SECONDS
from tests.support.node_packages import provide_ws

QUIET = "status_interval = 600.0\nlatency_interval = 600.0\nuptime_interval = 600.0"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
MIN_COMPRESSED = 512
SUBSCRIBE = {"type": "subscribe", "id": "one", "data": {"state_changes": True, "latency": False}}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("compression"), websocket=QUIET) as started:
        yield started


# -- websockets ------------------------------------------------------------------------------------------------


class Witness(PerMessageDeflate):
    """Sees of each message whether it is compressed."""

    def __init__(self, inner: PerMessageDeflate) -> None:
        self.__dict__.update(inner.__dict__)
        self.came: list[tuple[str, bool]] = []
        self.went: list[bool] = []

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        plain = super().decode(frame, max_size=max_size)
        if frame.opcode is Opcode.TEXT:
            self.came.append((json.loads(bytes(plain.data))["type"], frame.rsv1))
            assert len(plain.data) >= MIN_COMPRESSED or not frame.rsv1
        return plain

    def encode(self, frame: Frame) -> Frame:
        sent = super().encode(frame)
        if sent.opcode is Opcode.TEXT:
            self.went.append(sent.rsv1)
        return sent


def test_websockets_sends_and_gets_compressed_messages(daemon: Daemon) -> None:
    with daemon.connect(daemon.token("viewer"), compression="deflate") as socket:
        assert socket.response is not None
        assert socket.response.headers["Sec-WebSocket-Extensions"] == AGREED
        receive(socket, "status")
        (agreed,) = socket.protocol.extensions
        assert isinstance(agreed, PerMessageDeflate)
        witness = Witness(agreed)
        socket.protocol.extensions = [witness]
        socket.send(json.dumps(SUBSCRIBE))
        answer = receive(socket, "subscribed")
        assert answer["id"] == "one"
        for _ in range(2):
            socket.send('{"type":"status"}')
            assert receive(socket, "status")["data"]["node_id"] == "node-1"
    assert witness.went == [True] * 3
    assert witness.came == [("subscribed", False), ("status", True), ("status", True)]


# -- Node's ws -------------------------------------------------------------------------------------------------

SCRIPT = """
import { once } from "node:events";
import WebSocket from "ws";

const [url, subscribe] = process.argv.slice(2);
const socket = new WebSocket(url, { perMessageDeflate: { threshold: 0 } });
const next = async () => String((await once(socket, "message"))[0]);
await next();
const before = [socket._socket.bytesRead, socket._socket.bytesWritten];
socket.send(subscribe);
const answer = await next();
const written = socket._socket.bytesWritten - before[1];
before[0] = socket._socket.bytesRead;
socket.send('{"type":"status"}');
const status = await next();
const read = socket._socket.bytesRead - before[0];
console.log(JSON.stringify({ extensions: socket.extensions, answer, status, written, read }));
socket.close();
"""


@pytest.fixture
def with_ws(tmp_path: Path) -> Path:
    """A folder in which Node finds the package ws."""
    provide_ws(tmp_path)
    return tmp_path


@pytest.mark.needs("node")
def test_the_ws_of_node_sends_and_gets_compressed_messages(daemon: Daemon, with_ws: Path) -> None:
    (with_ws / "speak.mjs").write_text(SCRIPT, encoding="utf-8")
    # With blanks, so that compressed and plain cannot be mistaken.
    subscribe = json.dumps(SUBSCRIBE) + " " * 1000
    url = f"ws://{daemon.address}/ws/cluster?token={daemon.token('viewer')}"
    done = subprocess.run(
        ["node", "speak.mjs", url, subscribe],
        cwd=with_ws,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["extensions"].startswith("permessage-deflate")
    assert json.loads(report["answer"])["type"] == "subscribed"
    assert report["written"] < len(subscribe) / 4
    assert json.loads(report["status"])["type"] == "status"
    assert report["read"] < len(report["status"]) * 0.6


# -- what is agreed --------------------------------------------------------------------------------------------


def agreed(daemon: Daemon, token: str, *offers: str) -> str | None:
    """The daemon's answer to these Sec-WebSocket-Extensions headers."""
    lines = [
        f"GET /ws/cluster?token={token} HTTP/1.1",
        f"Host: {daemon.address}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *(f"Sec-WebSocket-Extensions: {offer}" for offer in offers),
    ]
    host, port = daemon.address.rsplit(":", 1)
    with stdlib.create_connection((host, int(port)), timeout=SECONDS) as socket:
        socket.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += socket.recv(4096)
    status, *headers = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert status.startswith("HTTP/1.1 101 ")
    found = [value for name, _, value in (line.partition(": ") for line in headers) if "Extensions" in name]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        (["permessage-deflate"], AGREED),
        (["permessage-deflate; client_max_window_bits"], AGREED),
        (
            ["permessage-deflate; server_max_window_bits=15; client_max_window_bits=9"],
            f"{AGREED}; server_max_window_bits=15",
        ),
        (["x-unheard-of; a=1", "permessage-deflate"], AGREED),
        (["permessage-deflate; server_max_window_bits=9, permessage-deflate"], AGREED),
        ([], None),
        (["x-webkit-deflate-frame"], None),
        (["permessage-deflate; server_max_window_bits=9"], None),
        (["permessage-deflate; server_max_window_bits=015"], None),
        (["permessage-deflate; client_max_window_bits=16"], None),
        (["permessage-deflate; client_max_window_bits=8; client_max_window_bits=8"], None),
        (["permessage-deflate; server_no_context_takeover=true"], None),
        (["permessage-deflate; mystery"], None),
        (["permessage-deflate;"], None),
        (["; , ;;"], None),
    ],
)
def test_an_offer_is_taken_only_if_all_of_it_is_understood(
    daemon: Daemon, offers: list[str], answer: str | None
) -> None:
    assert agreed(daemon, daemon.token("viewer"), *offers) == answer


@pytest.mark.extended
def test_compression_that_is_switched_off_is_declined_and_all_goes_on_without(tmp_path: Path) -> None:
    with running(tmp_path, websocket="compression = false") as daemon:
        token = daemon.token("viewer")
        assert agreed(daemon, token, "permessage-deflate") is None
        with daemon.connect(token, compression="deflate") as socket:
            assert socket.protocol.extensions == []
            receive(socket, "status")
            socket.send(json.dumps(SUBSCRIBE))
            receive(socket, "subscribed")
        assert daemon.stop() == 0
