"""The daemon from the outside, through a WebSocket client that we did not write.

These are Helios' eight promises (lifecycle, registration, broadcasting, subscription, ping and pong, event
listener, serialization, subscription defaults) as a Helios client sees them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from tests.support.daemon_process import PASSWORD, Daemon, close_code, receive, running, wait_until
from tests.support.deadlines import SECONDS, at_most

SEVEN = ("status", "latency", "uptime", "snapshot", "custom_metrics", "state_changes", "peer_changes")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(
        tmp_path_factory.mktemp("daemon"),
        websocket="status_interval = 0.2\nlatency_interval = 0.2\nuptime_interval = 0.2",
    ) as started:
        yield started


@pytest.fixture
def socket(daemon: Daemon) -> Iterator[ClientConnection]:
    with daemon.connect(daemon.token()) as connection:
        yield connection


def test_login_at_helios_address_gives_a_token_that_opens_the_socket(daemon: Daemon) -> None:
    answer = httpx.post(
        f"{daemon.url}/api/auth/login",
        json={"username": "admin", "password": PASSWORD},
        timeout=SECONDS,
        verify=False,
    ).json()
    assert set(answer) == {"token", "user_id", "expires_at", "roles"}
    assert (answer["user_id"], answer["roles"]) == ("admin", ["admin"])
    with daemon.connect(answer["token"]) as socket:
        assert json.loads(socket.recv(SECONDS))["type"] == "status"


def test_the_first_message_is_status_with_helios_flat_fields(socket: ClientConnection) -> None:
    message = json.loads(socket.recv(SECONDS))
    assert set(message) == {"type", "timestamp", "data"}
    data = message["data"]
    assert message["type"] == "status"
    assert data["node_id"] == "node-1"
    assert data["state"] in {"Leader", "Follower", "Candidate"}
    for number in ("term", "commit_index", "last_applied"):
        assert isinstance(data[number], int)
    assert data["leader"] in {"node-1", "node-2", "node-3"}
    assert sorted(data["peers"]) == ["node-2", "node-3"]
    assert data["custom_metrics"] == {}
    assert data["as_of_seq"] >= 1


def test_a_client_that_only_listens_receives_every_type_of_value(socket: ClientConnection) -> None:
    wanted = {"status_update", "latency", "uptime"}
    while wanted:
        message = json.loads(socket.recv(SECONDS))
        wanted.discard(message["type"])
        assert "seq" not in message


def test_a_peer_that_is_added_and_removed_gives_events_with_its_id(
    daemon: Daemon, socket: ClientConnection
) -> None:
    with daemon.client() as http:
        added = http.post("/admin/cluster/peers", json={"id": "node-9", "address": "127.0.0.1:7009"})
        assert added.status_code == 201, added.text
        message = receive(socket, "peer_change")
        assert message["data"] == {
            "event_type": "added",
            "peer_id": "node-9",
            "peer_address": "127.0.0.1:7009",
            "event": "added",
            "address": "127.0.0.1:7009",
        }
        removed = http.request("DELETE", "/api/cluster/peers", json={"id": "node-9"})
        assert removed.status_code == 200, removed.text
        again = receive(socket, "peer_change")
        while again["data"]["event_type"] != "removed":
            again = receive(socket, "peer_change")
        assert again["data"]["peer_id"] == "node-9"
        assert again["seq"] > message["seq"]


def test_a_metric_is_heard_of_when_registered_changed_and_deleted(
    daemon: Daemon, socket: ClientConnection
) -> None:
    with daemon.client() as http:
        url = "/api/cluster/custom-metrics"
        assert http.post(url, json={"name": "jobs", "type": "gauge", "help": "h"}).status_code == 201
        registered = receive(socket, "custom_metrics")
        assert registered["data"]["jobs"]["type"] == "gauge"
        assert isinstance(registered["seq"], int)
        assert http.put(url, json={"name": "jobs", "value": 7.5}).status_code == 200
        changed = receive(socket, "custom_metrics")
        assert changed["data"]["jobs"]["value"] == 7.5
        assert "seq" not in changed
        assert http.delete(url, params={"name": "jobs"}).status_code == 200
        deleted = receive(socket, "custom_metrics")
        assert (deleted["data"], deleted["seq"]) == ({"jobs": None}, registered["seq"] + 1)


def test_a_snapshot_is_heard_of_when_it_is_taken(daemon: Daemon, socket: ClientConnection) -> None:
    with daemon.client() as http:
        name = {"name": "before_snapshot", "type": "counter"}
        assert http.post("/api/cluster/custom-metrics", json=name).status_code == 201
        assert http.post("/api/cluster/snapshot").status_code == 201
        data = receive(socket, "snapshot")["data"]
        assert {"index", "term", "size_bytes", "duration_ms", "type", "snapshot_id"} <= set(data)
        assert data["type"] == "created"
        http.delete("/api/cluster/custom-metrics", params={"name": "before_snapshot"})


def test_a_new_leader_is_heard_of_at_once(daemon: Daemon, socket: ClientConnection) -> None:
    first = json.loads(socket.recv(SECONDS))
    old = first["data"]["leader"]
    with daemon.client() as http:
        answer = http.post("/api/cluster/leadership/transfer")
        assert answer.status_code == 200, answer.text
    message = receive(socket, "state_change")
    while message["data"]["leader"] in {"", old}:
        message = receive(socket, "state_change")
    data = message["data"]
    # Evidence is there if the old leader had been called before.
    assert set(data) - {"evidence"} == {
        "old_state",
        "new_state",
        "term",
        "leader",
        "member",
        "cause",
        "observed_at",
    }
    assert data["cause"] == "transfer"
    assert data["leader"] == answer.json()["leader"]
    assert data["member"] == "node-1"
    # The loop takes several changes at once and then publishes how things stand.
    assert receive(socket, "status_update")["data"]["leader"] == data["leader"]


def test_ping_is_answered_with_pong(socket: ClientConnection) -> None:
    socket.send('{"type":"ping","timestamp":"2024-01-15T10:30:00Z"}')
    pong = receive(socket, "pong")
    assert set(pong) == {"type", "timestamp"}
    socket.send('{"type":"ping","id":4,"data":{"a":[1,2]}}')
    assert receive(socket, "pong")["data"] == {"a": [1, 2]}


def test_a_protocol_ping_is_answered(socket: ClientConnection) -> None:
    assert socket.ping().wait(SECONDS)


def test_subscribe_with_seven_booleans_filters(daemon: Daemon, socket: ClientConnection) -> None:
    seven = dict.fromkeys(SEVEN, False)
    socket.send(json.dumps({"type": "subscribe", "data": {**seven, "peer_changes": True}}))
    receive(socket, "subscribed")
    with daemon.client() as http:
        http.post("/api/cluster/custom-metrics", json={"name": "unheard", "type": "gauge"})
        http.post("/api/cluster/peers", json={"id": "node-8", "address": "127.0.0.1:7008"})
        assert json.loads(socket.recv(SECONDS))["data"]["peer_id"] == "node-8"
        http.delete("/api/cluster/peers", params={"id": "node-8"})
        http.delete("/api/cluster/custom-metrics", params={"name": "unheard"})


def test_unsubscribe_silences(socket: ClientConnection) -> None:
    socket.send('{"type":"unsubscribe"}')
    assert not any(receive(socket, "subscribed")["data"]["active"].values())
    with pytest.raises(TimeoutError):
        socket.recv(timeout=0.7)  # three beats of every value
    socket.send('{"type":"status","id":"still-here"}')
    assert json.loads(socket.recv(SECONDS))["id"] == "still-here"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("{", "bad_json"),
        ('{"type":"dance"}', "unknown_type"),
        ('{"type":"subscribe","data":{"all":true}}', "bad_field"),
    ],
)
def test_what_cannot_be_served_gets_an_error_and_the_connection_stays(
    socket: ClientConnection, sent: str, code: str
) -> None:
    socket.send(sent)
    error = receive(socket, "error")
    assert error["data"]["code"] == code
    assert error["data"]["error"]
    receive(socket, "status_update")


@pytest.mark.parametrize(
    ("path", "headers", "status", "error"),
    [
        ("/ws/cluster", {}, 401, "Authentication required"),
        ("/ws/cluster?token=nonsense", {}, 401, "Invalid token"),
        ("/ws/cluster", {"Authorization": "Bearer nonsense"}, 401, "Invalid token"),
        (
            "/ws/cluster?token=VIEWER",
            {"Authorization": "Bearer ADMIN"},
            400,
            "Two different tokens in one request",
        ),
        ("/ws/cluster?token=NOBODY", {}, 403, "Admin permission required"),
    ],
)
def test_a_client_without_access_is_refused_before_the_upgrade(
    daemon: Daemon, path: str, headers: dict[str, str], status: int, error: str
) -> None:
    tokens = {user.upper(): daemon.token(user) for user in ("admin", "viewer", "nobody")}
    for name, token in tokens.items():
        path = path.replace(name, token)
        headers = {key: value.replace(name, token) for key, value in headers.items()}
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{daemon.address}{path}", additional_headers=headers, open_timeout=SECONDS)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"") == {"error": error}


@pytest.mark.parametrize("way", ["query", "header", "subprotocol"])
def test_a_token_may_come_in_the_query_the_header_or_the_subprotocol(daemon: Daemon, way: str) -> None:
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    token = daemon.token("viewer")
    url = f"ws://{daemon.address}/ws/cluster"
    options: dict[str, Any] = {}
    if way == "query":
        url += f"?token={token}"
    elif way == "header":
        options["additional_headers"] = {"Authorization": f"Bearer {token}"}
    else:
        options["subprotocols"] = [Subprotocol("heliosd.v1"), Subprotocol(f"bearer.{token}")]
    with connect(url, open_timeout=SECONDS, **options) as socket:
        assert json.loads(socket.recv(SECONDS))["type"] == "status"
        assert socket.subprotocol == ("heliosd.v1" if way == "subprotocol" else None)


def test_a_browsers_own_origin_is_allowed(daemon: Daemon) -> None:
    with daemon.connect(daemon.token(), origin=f"http://{daemon.address}") as socket:
        assert json.loads(socket.recv(SECONDS))["type"] == "status"


def test_a_client_is_listed_while_it_is_connected_and_an_admin_can_end_it(daemon: Daemon) -> None:
    with daemon.client() as http, daemon.connect(daemon.token("viewer")) as socket:
        socket.recv(SECONDS)
        (mine,) = [c for c in http.get("/api/cluster/clients").json()["clients"] if c["user"] == "viewer"]
        assert set(mine) == {"id", "user", "address", "since", "transport", "queue", "sent", "dropped"}
        assert mine["transport"] == "websocket"
        assert mine["sent"] >= 1
        assert http.delete("/api/cluster/clients", params={"id": mine["id"]}).status_code == 200
        assert close_code(socket) == 4000
        wait_until(lambda: mine["id"] not in http.get("/api/cluster/clients").text)
        assert http.delete("/api/cluster/clients", params={"id": mine["id"]}).status_code == 404


def test_logout_closes_the_sockets_of_that_token_and_no_others(daemon: Daemon) -> None:
    token = daemon.token()
    with daemon.connect(token) as mine, daemon.connect(daemon.token()) as other:
        answer = httpx.post(
            f"{daemon.url}/api/auth/logout",
            headers={"Authorization": f"Bearer {token}"},
            timeout=SECONDS,
            verify=False,
        )
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
        assert close_code(mine) == 4401
        receive(other, "status_update")
    with pytest.raises(InvalidStatus), daemon.connect(token):
        pass


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x81\x00\x00\x00\x00\xff", 1007),
        (b"\x83\x80\x00\x00\x00\x00", 1002),
        (b"\x82\x80\x00\x00\x00\x00", 1003),
        (b"\x81\xff" + (2**62).to_bytes(8, "big") + b"\x00\x00\x00\x00", 1009),
    ],
)
def test_a_protocol_fault_gets_a_real_close_frame_and_the_connection_ends_within_a_second(
    daemon: Daemon, sent: bytes, code: int
) -> None:
    with daemon.connect(daemon.token()) as socket:
        socket.recv(SECONDS)
        socket.socket.sendall(sent)
        began = time.monotonic()
        assert close_code(socket) == code
        wait_until(lambda: socket.socket.fileno() < 0)
        assert time.monotonic() - began < at_most(1.5)


def test_a_close_frame_is_answered_with_its_code(daemon: Daemon) -> None:
    with daemon.connect(daemon.token()) as socket:
        began = time.monotonic()
        socket.close(4321, "enough")
        assert time.monotonic() - began < at_most(1)
    assert (socket.close_code, socket.protocol.close_rcvd.code if socket.protocol.close_rcvd else None) == (
        4321,
        4321,
    )


def test_joining_and_leaving_are_logged_without_a_token(daemon: Daemon) -> None:
    token = daemon.token("viewer")
    with daemon.connect(token) as socket:
        socket.recv(SECONDS)
    joined = daemon.wait_logged(lambda line: line["event"] == "client joined" and line["user"] == "viewer")
    left = daemon.wait_logged(
        lambda line: line["event"] == "client left" and line["client"] == joined["client"]
    )
    assert joined["address"].startswith("127.0.0.1:")
    assert left["reason"]
    assert not any(token in raw or token.split(".")[2] in raw for raw in daemon.raw)


def test_nothing_went_wrong_in_all_of_that(daemon: Daemon) -> None:
    assert [line for line in daemon.lines if line.get("level") in {"error", "critical"}] == []
    assert daemon.stop() == 0


def test_the_log_of_a_failed_start_says_why(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        import subprocess
        import sys

        second = subprocess.run(
            [sys.executable, "-m", "heliosd", "serve", "--config", str(first.config)],
            env={"STATE_DIRECTORY": str(tmp_path / "state"), "PATH": ""},
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        assert second.returncode == 1
        assert b"Traceback" not in second.stderr
        assert str(tmp_path / "state").encode() in second.stderr
