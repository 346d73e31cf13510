"""Writes over REST: what they answer when all goes well, and what when it does not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
import trio
from msgspec.structs import replace
from structlog.testing import capture_logs
from structlog.typing import EventDict
from trio.testing import MockClock

from heliosd.cluster import custom_metrics
from heliosd.errors import NoLeader, OutcomeUnknown, StoreFull
from tests.support.rest_server import Rest, simulated_rest
from tests.support.rest_shapes import SNAPSHOT_RECORD, check

PEERS = "/api/cluster/peers"
METRICS = "/api/cluster/custom-metrics"


@pytest.fixture
async def cluster() -> AsyncIterator[Rest]:
    """Over the simulated cluster."""
    async with simulated_rest() as rest:
        yield rest


@pytest.fixture
async def rest() -> Rest:
    """Over a backend whose answers a test decides."""
    return Rest()


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines
    structlog.reset_defaults()


# -- peers -----------------------------------------------------------------------------------------------------


async def test_a_peer_is_added_listed_and_removed(autojump_clock: MockClock, cluster: Rest) -> None:
    peer = {"id": "node-4", "address": "127.0.0.1:7003"}
    assert await cluster.ask_json("POST", PEERS, peer) == (
        201,
        {"message": "Peer added successfully", "peer": peer},
    )
    _, listed = await cluster.ask_json("GET", PEERS)
    assert listed["peers"][-1] in ({**peer, "state": "Learner"}, {**peer, "state": "Follower"})
    with trio.fail_after(60):
        while listed["peers"][-1]["state"] != "Follower":  # once it has caught up it is given a vote
            await trio.sleep(0.1)
            _, listed = await cluster.ask_json("GET", PEERS)
    gone = {"message": "Peer removed successfully", "peer_id": "node-4"}
    assert await cluster.ask_json("DELETE", PEERS, {"id": "node-4"}) == (200, gone)
    assert await cluster.ask_json("DELETE", f"{PEERS}?id=node-3") == (200, {**gone, "peer_id": "node-3"})
    _, listed = await cluster.ask_json("GET", PEERS)
    assert [peer["id"] for peer in listed["peers"]] == ["node-2"]


async def test_a_known_peer_and_this_node_itself_are_409_and_an_unknown_one_404(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    for name in ("node-2", "node-1"):
        status, body = await cluster.ask_json("POST", PEERS, {"id": name, "address": "127.0.0.1:7009"})
        assert (status, body["field"]) == (409, "id")
    assert (await cluster.ask_json("DELETE", f"{PEERS}?id=node-1"))[0] == 409
    assert (await cluster.ask_json("DELETE", f"{PEERS}?id=node-9"))[0] == 404


async def test_a_delete_needs_one_name_and_only_one(autojump_clock: MockClock, cluster: Rest) -> None:
    for path, field in ((PEERS, "id"), (METRICS, "name"), ("/api/cluster/clients", "id")):
        assert await cluster.ask_json("DELETE", path) == (400, {"error": "Missing field", "field": field})
        status, body = await cluster.ask_json("DELETE", f"{path}?{field}=node-2", {field: "node-3"})
        assert (status, body["field"]) == (400, field)
    assert (await cluster.ask_json("DELETE", f"{PEERS}?id=node-2", {"id": "node-2"}))[0] == 200


async def test_leadership_goes_where_it_is_asked_to_go(autojump_clock: MockClock, cluster: Rest) -> None:
    path = "/api/cluster/leadership/transfer"
    for target in ("node-3", "node-1", "node-2"):
        assert await cluster.ask_json("POST", path, {"target": target}) == (200, {"leader": target})
        _, status = await cluster.ask_json("GET", "/api/cluster/status")
        assert status["leader"]["id"] == target
    status, body = await cluster.ask_json("POST", path)
    assert (status, body["leader"] in {"node-1", "node-3"}) == (200, True)
    assert (await cluster.ask_json("POST", path, {"target": "node-9"}))[0] == 404


# -- custom metrics --------------------------------------------------------------------------------------------


async def put(cluster: Rest, **change: Any) -> int:
    return (await cluster.ask_json("PUT", METRICS, change))[0]


async def test_a_counter_lives_from_registration_to_deletion(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    body = {"name": "hits", "type": "counter", "help": "all", "labels": {"env": "prod"}}
    made = {"message": "Custom metric registered successfully", "name": "hits"}
    assert await cluster.ask_json("POST", METRICS, body) == (201, made)
    assert (await cluster.ask_json("POST", METRICS, body))[0] == 409
    updated = {"message": "Metric updated successfully", "name": "hits"}
    assert await cluster.ask_json("PUT", METRICS, {"name": "hits"}) == (200, updated)
    assert await put(cluster, name="hits", delta=2.5) == 200
    assert await put(cluster, name="hits", delta=-1) == 400
    assert await put(cluster, name="hits", value=1) == 400
    _, metric = await cluster.ask_json("GET", f"{METRICS}?name=hits")
    assert (metric["value"], metric["labels"], metric["help"]) == (3.5, {"env": "prod"}, "all")
    gone = {"message": "Custom metric deleted successfully", "name": "hits"}
    assert await cluster.ask_json("DELETE", f"{METRICS}?name=hits") == (200, gone)
    for status in (
        await put(cluster, name="hits"),
        (await cluster.ask_json("DELETE", METRICS, {"name": "hits"}))[0],
        (await cluster.ask_json("GET", f"{METRICS}?name=hits"))[0],
    ):
        assert status == 404


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(90, 90), (1.5, 1.5), ("90s", 90), ("1h30m", 5400), ("250ms", 0.25)]
)
async def test_a_metric_may_have_a_time_to_live(
    autojump_clock: MockClock, cluster: Rest, ttl: object, seconds: float
) -> None:
    body = {"name": "pushed", "type": "gauge", "ttl": ttl}
    assert (await cluster.ask_json("POST", METRICS, body))[0] == 201
    _, metric = await cluster.ask_json("GET", f"{METRICS}?name=pushed")
    assert metric["ttl"] == seconds
    await cluster.ask("POST", METRICS, {"name": "stays", "type": "gauge", "ttl": None})
    _, metric = await cluster.ask_json("GET", f"{METRICS}?name=stays")
    assert "ttl" not in metric


@pytest.mark.parametrize("ttl", [0, -1, 0.01, 1e12, "soon", "5", "", "0s", True, [1]])
async def test_what_is_no_time_to_live_is_refused(
    autojump_clock: MockClock, cluster: Rest, ttl: object
) -> None:
    body = {"name": "pushed", "type": "gauge", "ttl": ttl}
    status, problem = await cluster.ask_json("POST", METRICS, body)
    assert (status, problem["field"]) == (400, "ttl")


async def test_gauges_are_set_and_histograms_observe(autojump_clock: MockClock, cluster: Rest) -> None:
    await cluster.ask("POST", METRICS, {"name": "temp", "type": "gauge"})
    await cluster.ask("POST", METRICS, {"name": "took", "type": "histogram", "buckets": [1, 2]})
    for value in (1, 1.5, 9):
        assert await put(cluster, name="took", value=value) == 200
    assert await put(cluster, name="temp", value=-3) == 200
    assert await put(cluster, name="temp", delta=1) == 400
    assert await put(cluster, name="temp") == 400
    _, report = await cluster.ask_json("GET", METRICS)
    assert (report["total_metrics"], report["gauge_metrics"], report["histogram_metrics"]) == (2, 1, 1)
    assert report["metrics"]["temp"]["value"] == -3
    took = report["metrics"]["took"]
    assert (took["value"], took["count"], took["sum"]) == (3, 3, 11.5)
    assert (took["buckets"], took["bucket_counts"]) == ([1, 2], [1, 2, 3])


async def test_metrics_beyond_the_bytes_of_a_status_are_507_and_a_deletion_makes_room(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    current = cluster.settings.current
    cluster.settings.replace(replace(current, websocket=replace(current.websocket, max_status_bytes=10_000)))
    registered = 0
    while True:
        body = {"name": f"m{registered}", "type": "gauge", "help": "h" * 1000}
        status, answer = await cluster.ask_json("POST", METRICS, body)
        if status != 201:
            break
        registered += 1
    assert (status, answer["error"]) == (
        507,
        "With this metric a status would have more than 10000 bytes of metrics",
    )
    assert 7 <= registered <= 9
    _, shown = await cluster.ask_json("GET", METRICS)
    assert len(json.dumps(shown["metrics"])) <= 10_500
    assert (await cluster.ask_json("POST", METRICS, {**body, "name": "m0"}))[0] == 409
    assert (await cluster.ask_json("POST", METRICS, {**body, "name": "0"}))[0] == 400
    await cluster.ask("DELETE", f"{METRICS}?name=m0")
    assert (await cluster.ask_json("POST", METRICS, {**body, "name": "m0", "help": "h" * 2100}))[0] == 507
    assert (await cluster.ask_json("POST", METRICS, body))[0] == 201


async def test_a_metric_beyond_the_most_is_409(
    autojump_clock: MockClock, cluster: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert custom_metrics.MAX_METRICS == 1_000
    monkeypatch.setattr(custom_metrics, "MAX_METRICS", 20)
    for number in range(20):
        assert (
            await cluster.ask("POST", METRICS, {"name": f"m{number}", "type": "gauge"})
        ).status_code == 201
    assert (await cluster.ask_json("POST", METRICS, {"name": "one_more", "type": "gauge"}))[0] == 409


async def test_of_fifty_creations_of_one_name_at_once_one_succeeds(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    statuses: list[int] = []

    async def create() -> None:
        answer = await cluster.ask("POST", METRICS, {"name": "only", "type": "gauge"})
        statuses.append(answer.status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(create)
    assert sorted(statuses) == [201, *[409] * 49]


# -- resets, snapshot, clients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["latency", "uptime", "snapshot", "custom-metrics", "metrics"])
async def test_a_reset_answers_with_a_message_and_is_seen_at_once(
    autojump_clock: MockClock, cluster: Rest, what: str
) -> None:
    await cluster.ask("POST", METRICS, {"name": "m", "type": "gauge"})
    await cluster.ask("POST", "/api/cluster/snapshot")
    status, body = await cluster.ask_json("POST", f"/api/cluster/{what}/reset")
    assert (status, list(body)) == (200, ["message"])
    _, after = await cluster.ask_json("GET", f"/api/cluster/{what}")
    match what:
        case "latency":
            assert after["aggregated"]["count"] == 0
        case "uptime":
            assert after["historical"]["total_sessions"] == 1
        case "snapshot":
            assert after["total_snapshots_created"] == 0
            assert after["has_snapshot"]
        case _:
            assert after["total_metrics"] == 0


async def test_a_snapshot_taken_twice_without_a_change_is_the_same(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    answers = [await cluster.ask_json("POST", "/api/cluster/snapshot") for _ in range(2)]
    assert [status for status, _ in answers] == [201, 201]
    for _, body in answers:
        check({"message": None, "snapshot": SNAPSHOT_RECORD}, body)


async def test_a_client_is_disconnected_once(autojump_clock: MockClock, rest: Rest) -> None:
    rest.roster.connect("c1")
    gone = {"message": "Client disconnected successfully", "client_id": "c1"}
    assert await rest.ask_json("DELETE", "/api/cluster/clients?id=c1") == (200, gone)
    status, body = await rest.ask_json("DELETE", "/api/cluster/clients?id=c1")
    assert (status, body["field"]) == (404, "id")


async def test_a_permit_to_stop_a_member_is_given_while_a_quorum_is_left(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    status, given = await cluster.ask_json("POST", PERMITS, {"member": "node-3", "seconds": 60})
    permit = given["permit"]
    assert (status, permit["member"], permit["user"]) == (201, "node-3", "admin")
    assert await cluster.ask_json("GET", PERMITS) == (200, {"permits": [permit]})
    status, answer = await cluster.ask_json("POST", PERMITS, {"member": "node-2"})
    assert (status, answer["error"]) == (
        409,
        f"admin has the permit to stop node-3, until {permit['expires_at']}",
    )
    status, renewed = await cluster.ask_json("PUT", PERMITS, {"id": permit["id"]})
    assert status == 200
    assert renewed["permit"]["expires_at"] > permit["expires_at"]
    status, _ = await cluster.ask_json("DELETE", f"{PERMITS}?id={permit['id']}")
    assert status == 200
    status, answer = await cluster.ask_json("DELETE", f"{PERMITS}?id={permit['id']}")
    assert (status, answer["field"]) == (404, "id")
    status, learner = await cluster.ask_json("POST", PEERS, {"id": "node-4", "address": "127.0.0.1:7003"})
    assert status == 201, learner
    status, given = await cluster.ask_json("POST", PERMITS, {"member": "node-4"})
    assert (status, given["permit"]["member"]) == (201, "node-4")
    await cluster.ask_json("DELETE", f"{PERMITS}?id={given['permit']['id']}")
    assert (await cluster.ask_json("DELETE", f"{PEERS}?id=node-4"))[0] == 200
    await cluster.ask_json("PUT", "/api/cluster/simulation", {"crashed": ["node-3"]})
    status, answer = await cluster.ask_json("POST", PERMITS, {"member": "node-2"})
    assert (status, answer["error"]) == (
        409,
        "Without node-2 only 1 of 3 voters would be left, and 2 are needed; node-3 cannot be counted on",
    )
    assert (await cluster.ask_json("POST", PERMITS, {"member": "node-3"}))[0] == 201


# -- when it does not go well ----------------------------------------------------------------------------------

PERMITS = "/api/cluster/permits"
WRITES = [
    ("POST", PEERS, {"id": "node-9", "address": "127.0.0.1:7009"}),
    ("DELETE", PEERS, {"id": "node-2"}),
    ("POST", METRICS, {"name": "m", "type": "gauge"}),
    ("PUT", METRICS, {"name": "m", "value": 1}),
    ("DELETE", METRICS, {"name": "m"}),
    ("POST", f"{METRICS}/reset", None),
    ("POST", "/api/cluster/uptime/reset", None),
    ("POST", "/api/cluster/snapshot", None),
    ("POST", "/api/cluster/snapshot/reset", None),
    ("POST", "/api/cluster/leadership/transfer", None),
    ("POST", PERMITS, {"member": "node-2"}),
]
writes = pytest.mark.parametrize(("method", "path", "body"), WRITES)


@writes
async def test_a_write_without_a_leader_is_503_with_a_time_to_come_back(
    autojump_clock: MockClock, rest: Rest, method: str, path: str, body: object
) -> None:
    rest.lone.trouble = NoLeader()
    answer = await rest.ask(method, path, body)
    assert (answer.status_code, await answer.get_json()) == (503, {"error": "No leader"})
    assert answer.headers["Retry-After"] == "1"


@writes
async def test_a_write_of_unknown_outcome_is_504(
    autojump_clock: MockClock, rest: Rest, method: str, path: str, body: object
) -> None:
    rest.lone.trouble = OutcomeUnknown()
    assert await rest.ask_json(method, path, body) == (504, {"error": "Outcome unknown"})


@writes
async def test_a_write_that_never_ends_is_answered_within_five_seconds(
    autojump_clock: MockClock, rest: Rest, method: str, path: str, body: object
) -> None:
    rest.lone.stuck = True
    started = trio.current_time()
    assert await rest.ask_json(method, path, body) == (504, {"error": "Outcome unknown"})
    assert trio.current_time() - started < 5


@writes
async def test_a_write_that_the_disk_refuses_is_507(
    autojump_clock: MockClock, rest: Rest, method: str, path: str, body: object, logged: list[EventDict]
) -> None:
    rest.lone.trouble = StoreFull("/var/lib/heliosd: no space")
    assert await rest.ask_json(method, path, body) == (507, {"error": "The change could not be stored"})


@writes
async def test_a_bug_is_500_with_an_id_that_is_in_the_log_and_nothing_else(
    autojump_clock: MockClock, rest: Rest, method: str, path: str, body: object, logged: list[EventDict]
) -> None:
    rest.lone.trouble = KeyError("secret detail")
    status, answer = await rest.ask_json(method, path, body)
    assert status == 500
    assert answer == {"error": "Internal error", "request_id": answer["request_id"]}
    (line,) = (each for each in logged if each["event"] != "audit")
    assert (line["log_level"], line["request_id"]) == ("error", answer["request_id"])
    assert line["route"] == f"{method} {path}"
    rest.lone.trouble = None
    assert (await rest.ask("GET", "/healthz")).status_code == 200


async def test_a_group_of_errors_is_a_bug_too(
    autojump_clock: MockClock, rest: Rest, logged: list[EventDict]
) -> None:
    rest.lone.trouble = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])])
    status, answer = await rest.ask_json("POST", "/api/cluster/snapshot")
    assert (status, answer["error"]) == (500, "Internal error")


async def test_a_client_that_leaves_ends_its_request_at_once(autojump_clock: MockClock, rest: Rest) -> None:
    rest.lone.stuck = True
    started = trio.current_time()
    with trio.fail_after(60):
        await rest.ask_and_leave("POST", "/api/cluster/snapshot", rest.token())
    assert trio.current_time() == started
