"""heliosd that starts while etcd cannot be read: a client that resumes later still misses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from heliosd.client.client import Connected, Disconnected, open_client
from heliosd.client.http_api import Password
from heliosd.client.resume import Gap, Message
from heliosd.protocol.history import Cursor
from tests.support.daemon_process import PASSWORD, Daemon, wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import etcd_config, listening, starting

pytestmark = pytest.mark.needs("etcd")


@pytest.fixture
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster.start(1) as started:
        yield started


@pytest.mark.extended
def test_a_resume_is_refused_until_etcd_has_been_read_and_then_loses_nothing(
    tmp_path: Path, cluster: EtcdCluster
) -> None:
    config = etcd_config(tmp_path / "node", "etcd-1", cluster)
    with starting(tmp_path / "node", config) as daemon:
        daemon.wait_listening()
        daemon.wait_ready()
        daemon.register_gauge("app_one")
        history = histories(daemon).json()
        epoch, seq = history["epoch"], history["seq"]
        daemon.register_gauge("app_two")
        assert daemon.stop() == 0
    cluster.kill(0)
    with starting(tmp_path / "node", config) as daemon:
        daemon.wait_listening()
        token = daemon.token()
        with listening(daemon, token) as early:
            assert early.heard[0][1]["type"] == "status"
            assert early.heard[0][1]["data"]["stale"] is True
            query = f"epoch={epoch}&after={seq}"
            upgrade = f"ws://{daemon.address}/ws/cluster?token={token}&{query}"
            with pytest.raises(InvalidStatus) as refused, connect(upgrade, proxy=None):
                pass
            for answer in (refused.value.response, events(daemon, token, query), histories(daemon)):
                assert body_of(answer) == {"error": "The cluster's events cannot be read yet"}
            trio.run(follow, daemon, Cursor(epoch, seq), cluster)
            wait_until(lambda: any(message["type"] == "welcome" for _, message in early.heard))
            welcome = early.of("welcome")[0][1]["data"]
            assert (welcome["epoch"], welcome["recovered"]) == (epoch, False)
            wait_until(lambda: len(early.of("status")) == 2)
            assert early.of("status")[1][1]["data"]["as_of_seq"] >= seq + 1
        assert daemon.stop() == 0


async def follow(daemon: Daemon, since: Cursor, cluster: EtcdCluster) -> None:
    """heliosd's own client tries on, and misses nothing."""
    heard: list[Any] = []
    with trio.fail_after(60):
        async with open_client(
            daemon.url, Password("admin", PASSWORD), since=since, notices=True
        ) as following:
            async for item in following:
                heard.append(item)
                assert not isinstance(item, Gap)
                if isinstance(item, Disconnected):
                    assert item.reason == "The cluster's events cannot be read yet"
                    assert item.retry_in >= 1
                    if len(heard) == 2:
                        await trio.to_thread.run_sync(cluster.restart, 0)
                if isinstance(item, Message) and item.seq is not None:
                    break
    assert any(isinstance(item, Connected) for item in heard)
    welcome = next(item for item in heard if isinstance(item, Message))
    assert (welcome.type, welcome.data["recovered"], welcome.data["epoch"]) == ("welcome", True, since.epoch)
    first = heard[-1]
    assert since.after is not None
    assert (first.seq, list(first.data)) == (since.after + 1, ["app_two"])


def histories(daemon: Daemon) -> httpx.Response:
    return daemon.ask("GET", "/api/cluster/history")


def events(daemon: Daemon, token: str, query: str) -> httpx.Response:
    return httpx.get(f"{daemon.url}/api/cluster/events?token={token}&{query}", timeout=5, verify=False)


def body_of(answer: Any) -> Any:
    """The body of a 503 that says when to come back."""
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["Retry-After"]) <= 5
    return json.loads(answer.body if hasattr(answer, "body") else answer.content)
