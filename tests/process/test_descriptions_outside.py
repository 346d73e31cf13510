"""The description of a started daemon's messages, held against those that it sends. Its page: test_dashboard.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain

import pytest

from heliosd.protocol.message_data import MESSAGES
from tests.support.daemon_process import Daemon, closing_connection, running
from tests.support.described import checker, undescribed

NOT_SEEN_HERE = {"gap", "token_expiring"}
TOPICS = ("status", "latency", "uptime", "snapshot", "custom_metrics", "state_changes", "peer_changes")
FAST = "status_interval = 0.2\nlatency_interval = 0.2\nuptime_interval = 0.2\nmetrics_interval = 0.05"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("described"), websocket=FAST) as started:
        yield started


@pytest.mark.extended
def test_every_message_is_as_asyncapi_describes_it(daemon: Daemon) -> None:
    with daemon.client() as http:
        described = http.get("/asyncapi.json").json()
        token = http.headers["Authorization"].removeprefix("Bearer ")
        with daemon.connect(token) as socket:
            for command in (
                {"type": "ping", "id": "p", "data": [1]},
                {"type": "status", "id": 2},
                {"type": "subscribe", "id": 3, "data": dict.fromkeys(TOPICS, True)},
                {"type": "auth", "id": 4, "data": {"token": token}},
                {"type": "nonsense", "id": 5},
            ):
                socket.send(json.dumps(command))
            http.post("/api/cluster/custom-metrics", json={"name": "hits", "type": "counter"})
            http.put("/api/cluster/custom-metrics", json={"name": "hits"})
            http.post("/api/cluster/snapshot")
            http.post("/api/cluster/leadership/transfer", json={})
            http.request("DELETE", "/api/cluster/peers", json={"id": "node-3"})
            seen: set[str] = set()
            with closing_connection(
                f"ws://{daemon.address}/ws/cluster?token={token}&after=now", {}
            ) as resumed:
                welcome = json.loads(resumed.recv())
            for message in chain([welcome], map(json.loads, socket)):
                schema = described["components"]["messages"][f"{message['type']}_message"]["payload"]
                checker(described, schema).validate(message)
                assert list(undescribed(described, schema, message)) == []
                seen.add(message["type"])
                if seen >= MESSAGES.keys() - NOT_SEEN_HERE:
                    break
    assert seen >= MESSAGES.keys() - NOT_SEEN_HERE
