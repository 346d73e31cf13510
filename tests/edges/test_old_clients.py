"""What Helios' clients send and read, where heliosd answers as Helios did (docs/migration.md has the rest)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from heliosd.protocol.events import PeerChanged, Stamped
from heliosd.protocol.server_messages import of_event
from tests.support.old_answers import TYPES
from tests.support.rest_server import PASSWORD, Rest, simulated_rest

METRICS = "/admin/cluster/metrics"


@pytest.fixture
async def cluster() -> AsyncIterator[Rest]:
    """Over the simulated cluster."""
    async with simulated_rest() as rest:
        yield rest


async def metric(rest: Rest, name: str) -> dict[str, Any]:
    answer = await rest.ask("GET", f"{METRICS}?name={name}")
    body: dict[str, Any] = json.loads(await answer.get_data())
    return body


async def test_a_login_with_further_fields_is_accepted(cluster: Rest) -> None:
    body = {"username": "admin", "password": PASSWORD, "remember": True, "device": None}
    status, answer = await cluster.ask_json("POST", "/api/auth/login", body, user=None)
    assert (status, answer["user_id"]) == (200, "admin")


@pytest.mark.parametrize("optional", ["help", "labels", "buckets"])
async def test_null_is_an_optional_field_left_out(
    autojump_clock: MockClock, cluster: Rest, optional: str
) -> None:
    body = {"name": "m", "type": "gauge", optional: None}
    assert (await cluster.ask_json("POST", METRICS, body))[0] == 201
    change = {"name": "m", "value": 2, "delta": None}
    assert (await cluster.ask_json("PUT", METRICS, change))[0] == 200
    assert (await metric(cluster, "m"))["value"] == 2


@pytest.mark.parametrize("name", ["name", "type"])
async def test_null_in_a_required_field_is_refused(
    autojump_clock: MockClock, cluster: Rest, name: str
) -> None:
    status, answer = await cluster.ask_json("POST", METRICS, {"name": "m", "type": "gauge", name: None})
    assert (status, answer["field"]) == (400, name)


@pytest.mark.parametrize(
    ("kind", "value", "delta", "then"),
    [
        ("gauge", 3, 0, 3),
        ("gauge", 0, 0, 0),
        ("histogram", 3, 0, 1),
        ("counter", 0, 5, 5),
        ("counter", 0, 0, 1),
    ],
)
async def test_a_go_client_writes_its_whole_struct(
    autojump_clock: MockClock, cluster: Rest, kind: str, value: float, delta: float, then: float
) -> None:
    await cluster.ask_json("POST", METRICS, {"name": "m", "type": kind})
    body = {"name": "m", "value": value, "delta": delta}
    assert (await cluster.ask_json("PUT", METRICS, body))[0] == 200
    assert (await metric(cluster, "m"))["value"] == then


@pytest.mark.parametrize(
    ("kind", "value", "delta", "field"), [("gauge", 0, 5, "delta"), ("counter", 3, 0, "value")]
)
async def test_the_wrong_number_for_a_metrics_type_is_refused_beside_a_zero_too(
    autojump_clock: MockClock, cluster: Rest, kind: str, value: float, delta: float, field: str
) -> None:
    await cluster.ask_json("POST", METRICS, {"name": "m", "type": kind})
    status, answer = await cluster.ask_json("PUT", METRICS, {"name": "m", "value": value, "delta": delta})
    assert (status, answer["field"]) == (400, field)


@pytest.mark.parametrize(
    ("query", "all_shown"),
    [
        ("events=0&{0}=0", False),
        ("events=-5&{0}=-5", False),
        ("events=1001&{0}=101", True),
        ("events=99999999999&{0}=99999999999", True),
    ],
)
async def test_a_limit_of_a_history_out_of_range_counts_as_the_nearest_in_range(
    autojump_clock: MockClock, cluster: Rest, query: str, all_shown: bool
) -> None:
    await cluster.ask("POST", "/api/cluster/snapshot")
    _, uptime = await cluster.ask_json("GET", f"/api/cluster/uptime/history?{query.format('sessions')}")
    _, snapshot = await cluster.ask_json("GET", f"/api/cluster/snapshot/history?{query.format('snapshots')}")
    assert uptime["total_events"] > 1
    for history, entries in ((uptime["recent_events"], uptime["total_events"]), (snapshot["events"], 1)):
        assert len(history) == (entries if all_shown else 1)
    assert len(uptime["recent_sessions"]) == len(snapshot["snapshots"]) == 1


async def test_prometheus_scrapes_the_old_path_too(autojump_clock: MockClock, cluster: Rest) -> None:
    answer = await cluster.ask("GET", "/admin/metrics")
    assert answer.status_code == 200
    assert b"\nraft_node_uptime_seconds" in await answer.get_data()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("latency", "Peer latency metrics reset successfully"),
        ("uptime", "Uptime history reset successfully"),
        ("snapshot", "Snapshot statistics reset successfully"),
        ("metrics", "Custom metrics reset successfully"),
    ],
)
async def test_resets_answer_with_the_documented_texts(
    autojump_clock: MockClock, cluster: Rest, path: str, message: str
) -> None:
    assert await cluster.ask_json("POST", f"/admin/cluster/{path}/reset") == (200, {"message": message})


async def test_duplicates_are_refused_with_the_documented_texts(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    peer = {"id": "node-2", "address": "127.0.0.1:7999"}
    status, answer = await cluster.ask_json("POST", "/admin/cluster/peers", peer)
    assert (status, answer["error"]) == (409, "Peer already exists: node-2")
    body = {"name": "m", "type": "gauge"}
    await cluster.ask_json("POST", METRICS, body)
    status, answer = await cluster.ask_json("POST", METRICS, body)
    assert (status, answer["error"]) == (409, "Metric m already exists")


def test_a_peer_change_carries_the_names_of_helios_documents_and_of_its_code() -> None:
    event = Stamped(1, 0.0, PeerChanged(event_type="added", peer_id="n", peer_address="127.0.0.1:1"))
    data = of_event(event).data
    assert data["event"] == data["event_type"] == "added"
    assert data["address"] == data["peer_address"] == "127.0.0.1:1"


def decode(kind: Any, value: Any, where: str) -> None:
    """As Go's encoding/json fills a struct; fails with the place of a value that does not fit."""
    match kind:
        case dict():
            assert isinstance(value, dict), where
            for name, inner in kind.items():
                assert name in value, f"{where}.{name} is missing"
                decode(inner, value[name], f"{where}.{name}")
        case [inner]:
            assert isinstance(value, list), where
            assert value, f"{where} is empty"
            for index, item in enumerate(value):
                decode(inner, item, f"{where}[{index}]")
        case _ if kind is float:
            assert type(value) in {int, float}, where
        case _:
            assert type(value) is kind, f"{where} is {value!r}"


@pytest.mark.parametrize("path", TYPES)
async def test_a_typed_go_client_can_decode_the_answer(
    autojump_clock: MockClock, cluster: Rest, path: str
) -> None:
    await cluster.ask_json("POST", METRICS, {"name": "g", "type": "gauge"})
    await cluster.ask_json("PUT", METRICS, {"name": "g", "value": 58})
    await cluster.ask_json("POST", METRICS, {"name": "h", "type": "histogram"})
    await cluster.ask_json("PUT", METRICS, {"name": "h", "value": 0.3})
    await cluster.ask("POST", "/admin/cluster/snapshot")
    await trio.sleep(3.7)
    status, answer = await cluster.ask_json("GET", f"/admin/cluster/{path}")
    assert status == 200
    decode(TYPES[path], answer, path)
