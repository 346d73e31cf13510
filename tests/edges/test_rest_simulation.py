"""`/api/cluster/simulation`: faults of the simulated cluster by request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.rest_server import Rest, simulated_rest

PATH = "/api/cluster/simulation"
HEALED: dict[str, Any] = {
    "partitions": [],
    "crashed": [],
    "loss": 0.0,
    "latency_ms": 1.0,
    "paused": [],
    "disk_latency_ms": {},
    "clock_rate": {},
    "clock_offset_ms": {},
}


@pytest.fixture
async def cluster() -> AsyncIterator[Rest]:
    async with simulated_rest() as rest:
        yield rest


async def shown(rest: Rest) -> dict[str, Any]:
    status, body = await rest.ask_json("GET", PATH)
    assert status == 200
    return dict(body)


async def put(rest: Rest, **change: Any) -> dict[str, Any]:
    status, body = await rest.ask_json("PUT", PATH, change)
    assert status == 200, body
    return dict(body)


def faults(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "nodes"}


def nodes(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["id"]: node for node in report["nodes"]}


async def until(rest: Rest, holds: Any) -> dict[str, dict[str, Any]]:
    with trio.fail_after(30):
        while not holds(found := nodes(await shown(rest))):  # noqa: ASYNC110 (there is no event for it)
            await trio.sleep(0.02)
    return dict(found)


def leaders(found: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, node in found.items() if node["state"] == "Leader"]


async def test_without_faults_all_members_are_shown_as_they_are(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    report = await shown(cluster)
    assert faults(report) == HEALED
    found = nodes(report)
    assert sorted(found) == ["node-1", "node-2", "node-3"]
    assert all(node["alive"] for node in found.values())
    (leader,) = leaders(found)
    assert {node["leader"] for node in found.values()} == {leader}


async def test_what_is_given_replaces_and_the_rest_stays(autojump_clock: MockClock, cluster: Rest) -> None:
    await put(cluster, partitions=[["node-2"]], loss=0.25)
    report = await put(cluster, crashed=["node-3"], latency_ms=2)
    assert faults(report) == HEALED | {
        "partitions": [["node-2"]],
        "loss": 0.25,
        "crashed": ["node-3"],
        "latency_ms": 2.0,
    }
    report = await put(cluster, partitions=[], crashed=[], loss=0)
    assert faults(report) == HEALED | {"latency_ms": 2.0}
    assert faults(await put(cluster)) == HEALED | {"latency_ms": 2.0}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"partitions": [["node-1"], ["node-9"]]}, "partitions"),
    ({"partitions": [["node-1"], ["node-1", "node-2"]]}, "partitions"),
    ({"partitions": [["node-1", "node-1"]]}, "partitions"),
    ({"partitions": [[]]}, "partitions"),
    ({"partitions": ["node-1"]}, "partitions"),
    ({"partitions": [[1]]}, "partitions"),
    ({"crashed": ["node-9"]}, "crashed"),
    ({"crashed": ["node-2", "node-2"]}, "crashed"),
    ({"crashed": "node-2"}, "crashed"),
    ({"crashed": ["node-2"], "paused": ["node-2"]}, "paused"),
    ({"paused": [""]}, "paused"),
    ({"loss": -0.1}, "loss"),
    ({"loss": 1.1}, "loss"),
    ({"loss": True}, "loss"),
    ({"loss": "0.5"}, "loss"),
    ({"latency_ms": -1}, "latency_ms"),
    ({"latency_ms": 1e9}, "latency_ms"),
    ({"disk_latency_ms": {"node-9": 1}}, "disk_latency_ms"),
    ({"disk_latency_ms": {"node-1": -1}}, "disk_latency_ms"),
    ({"disk_latency_ms": 5}, "disk_latency_ms"),
    ({"clock_rate": {"node-1": 0}}, "clock_rate"),
    ({"clock_rate": {"node-1": 11}}, "clock_rate"),
    ({"clock_offset_ms": {"node-1": -1}}, "clock_offset_ms"),
    ({"nodes": []}, "nodes"),
    ({"partition": []}, "partition"),
]


async def test_bad_input_is_refused_by_field_and_changes_nothing(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    before = await put(cluster, partitions=[["node-3"]], loss=0.5)
    good: dict[str, Any] = {"loss": 0.0, "latency_ms": 3.0, "partitions": []}
    for body, field in BAD:
        status, answer = await cluster.ask_json("PUT", PATH, good | body)
        assert (status, answer["field"]) == (400, field), body
        assert faults(await shown(cluster)) == faults(before), body


async def test_what_is_no_json_object_is_refused(autojump_clock: MockClock, cluster: Rest) -> None:
    for raw in (b"[]", b"{", b'{"loss":NaN}', b'{"loss":1e999}', b'{"loss":0,"loss":1}'):
        response = await cluster.ask("PUT", PATH, raw)
        assert response.status_code == 400, raw
        assert json.loads(await response.get_data())["error"]
    assert faults(await shown(cluster)) == HEALED


async def test_a_crashed_member_keeps_its_last_state_and_returns(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    before = nodes(await shown(cluster))
    (leader,) = leaders(before)
    found = nodes(await put(cluster, crashed=[leader]))
    assert found[leader] == before[leader] | {"alive": False, "state": "Down", "leader": ""}
    found = await until(cluster, lambda found: leaders(found) and leader not in leaders(found))
    assert found[leader]["term"] == before[leader]["term"]
    await put(cluster, crashed=[])
    found = await until(cluster, lambda found: len({node["leader"] for node in found.values()}) == 1)
    assert found[leader]["alive"]


async def test_this_nodes_own_member_may_crash_and_the_daemon_says_so(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    await put(cluster, crashed=["node-1"])
    _, status = await cluster.ask_json("GET", "/api/cluster/status")
    assert (status["node"]["state"], status["stale"]) == ("Down", True)
    assert status["leader"] == {"id": "", "address": "", "is_leader": False}
    assert await cluster.ask_json("GET", "/readyz", user=None) == (
        503,
        {"ready": False, "reason": "this node is down"},
    )
    write = {"name": "jobs", "type": "gauge"}
    assert (await cluster.ask_json("POST", "/api/cluster/metrics", write))[0] == 503
    assert (await cluster.ask_json("POST", "/api/cluster/snapshot"))[0] == 503
    await trio.sleep(40)
    _, status = await cluster.ask_json("GET", "/api/cluster/status")
    assert status["cluster_health"]["unhealthy_peers"] == 0, "who is down judges nobody"
    await put(cluster, crashed=[])
    with trio.fail_after(10):
        while (await cluster.ask_json("POST", "/api/cluster/metrics", write))[0] != 201:  # noqa: ASYNC110
            await trio.sleep(0.1)


async def test_a_paused_leader_is_replaced_and_steps_down_when_it_goes_on(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    (old,) = leaders(nodes(await shown(cluster)))
    await put(cluster, paused=[old])
    found = await until(cluster, lambda found: len(leaders(found)) == 2)
    assert found[old]["alive"]
    assert found[old]["state"] == "Leader", "it does not know yet"
    (new,) = set(leaders(found)) - {old}
    await put(cluster, paused=[])
    found = await until(cluster, lambda found: found[old]["state"] == "Follower")
    assert leaders(await until(cluster, lambda found: len(leaders(found)) == 1)) == [new]


async def test_a_slow_disk_delays_commits_and_loses_none(autojump_clock: MockClock, cluster: Rest) -> None:
    (leader,) = leaders(nodes(await shown(cluster)))
    followers = [name for name in ("node-1", "node-2", "node-3") if name != leader]
    await put(cluster, disk_latency_ms=dict.fromkeys(followers, 300))
    started = trio.current_time()
    write = {"name": "jobs", "type": "gauge"}
    assert (await cluster.ask_json("POST", "/api/cluster/metrics", write))[0] == 201
    assert 0.3 <= trio.current_time() - started < 0.5
    await put(cluster, disk_latency_ms={followers[0]: 300})
    started = trio.current_time()
    assert (await cluster.ask_json("PUT", "/api/cluster/metrics", {"name": "jobs", "value": 1}))[0] == 200
    if followers[0] != "node-1":
        assert trio.current_time() - started < 0.3, "a majority is quick"


async def test_a_leader_whose_clock_leaps_steps_down_and_the_others_do_not_care(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    before = nodes(await shown(cluster))
    (leader,) = leaders(before)
    await put(cluster, clock_offset_ms={leader: 10_000})
    found = await until(cluster, lambda found: found[leader]["state"] == "Follower")
    assert found[leader]["term"] == before[leader]["term"]
    await until(cluster, lambda found: len({node["leader"] for node in found.values()} - {""}) == 1)
    settled = await until(cluster, lambda found: len(leaders(found)) == 1)
    await put(cluster, clock_offset_ms={})
    await trio.sleep(30)
    assert leaders(nodes(await shown(cluster))) == leaders(settled), "a clock that is set right harms nobody"


async def test_a_fast_clock_alone_deposes_no_leader(autojump_clock: MockClock, cluster: Rest) -> None:
    (leader,) = leaders(nodes(await shown(cluster)))
    follower = next(name for name in ("node-2", "node-3") if name != leader)
    await put(cluster, clock_rate={follower: 8})
    await trio.sleep(10)
    found = nodes(await shown(cluster))
    assert found[leader]["state"] == "Leader"


async def test_less_latency_holds_for_what_is_in_flight_too(autojump_clock: MockClock, cluster: Rest) -> None:
    await put(cluster, latency_ms=30_000)
    await trio.sleep(5)
    await put(cluster, latency_ms=1)
    await until(cluster, lambda found: len(leaders(found)) == 1)
    assert (await cluster.ask_json("POST", "/api/cluster/metrics", {"name": "a", "type": "gauge"}))[0] == 201


async def test_a_faster_disk_takes_what_has_been_waiting_too(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    await put(cluster, disk_latency_ms={"node-2": 60_000.0, "node-3": 60_000.0})
    await cluster.ask_json("POST", "/api/cluster/metrics", {"name": "a", "type": "gauge"})
    await trio.sleep(1)
    healed = trio.current_time()
    await put(cluster, disk_latency_ms={})
    await until(cluster, lambda found: len(leaders(found)) == 1)
    assert (await cluster.ask_json("POST", "/api/cluster/metrics", {"name": "b", "type": "gauge"}))[0] == 201
    assert trio.current_time() - healed < 5


async def test_faults_end_with_their_member(autojump_clock: MockClock, cluster: Rest) -> None:
    await cluster.ask_json("POST", "/api/cluster/leadership/transfer", {"target": "node-1"})
    await put(
        cluster, partitions=[["node-3"]], clock_rate={"node-3": 2.0}, disk_latency_ms={"node-3": 60_000.0}
    )
    assert (await cluster.ask_json("DELETE", "/api/cluster/peers?id=node-3"))[0] == 200
    await until(cluster, lambda found: "node-3" not in found)
    assert faults(await shown(cluster)) == HEALED
    peer = {"id": "node-3", "address": "127.0.0.1:7002"}
    assert (await cluster.ask_json("POST", "/api/cluster/peers", peer))[0] == 201
    # It gets a vote once it has caught up, and that waits for its disk.
    await until(cluster, lambda found: found["node-3"]["state"] == "Follower")


async def test_another_backend_has_no_such_page(autojump_clock: MockClock) -> None:
    rest = Rest()
    for method in ("GET", "PUT"):
        assert (await rest.ask_json(method, PATH))[0] == 404
