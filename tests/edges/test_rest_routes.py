"""Every route of the table: who may use it, what it answers, and under which names."""

from __future__ import annotations

import json
import typing
from collections.abc import AsyncIterator, Iterator

import pytest
import trio
from trio.testing import MockClock

from heliosd.protocol.events import PeerChanged
from heliosd.web.http.listeners import Address
from heliosd.web.rest.asked import Asked
from heliosd.web.rest.route import Call, Route
from heliosd.web.rest.route_table import ROUTES
from tests.support import rest_shapes as shapes
from tests.support.rest_server import ROLES, Rest, simulated_rest

GETS: dict[str, shapes.Shape] = {
    **shapes.BY_PATH,
    "/healthz": {"status": None},
    "/readyz": {"ready": None},
}
NOT_JSON = {"/metrics", "/", "/docs", "/static/{name}", "/api/cluster/events"}
DESCRIPTIONS = {"/openapi.json", "/asyncapi.json"}

NEEDS = {
    **dict.fromkeys(
        (
            "POST /api/auth/refresh",
            "POST /api/auth/logout",
            "POST /api/auth/session",
            "DELETE /api/auth/session",
            "POST /api/auth/ticket",
            "GET /api/auth/me",
        ),
        "any token",
    ),
    "GET /api/cluster/events": "cluster:watch",
    **dict.fromkeys(
        (
            "POST /api/auth/login",
            "GET /healthz",
            "GET /readyz",
            "GET /",
            "GET /docs",
            *(f"GET {path}" for path in DESCRIPTIONS),
            "GET /static/{name}",
        ),
        "nothing",
    ),
    **dict.fromkeys(("GET /metrics", *(f"GET {path}" for path in GETS if "cluster" in path)), "cluster:read"),
    **dict.fromkeys((f"{m} /api/cluster/custom-metrics" for m in ("POST", "PUT", "DELETE")), "cluster:write"),
    **dict.fromkeys(
        (
            "POST /api/cluster/peers",
            "DELETE /api/cluster/peers",
            "POST /api/cluster/latency/reset",
            "POST /api/cluster/uptime/reset",
            "POST /api/cluster/snapshot",
            "POST /api/cluster/snapshot/reset",
            "POST /api/cluster/custom-metrics/reset",
            "POST /api/cluster/leadership/transfer",
            "PUT /api/cluster/simulation",
            "POST /api/cluster/permits",
            "PUT /api/cluster/permits",
            "DELETE /api/cluster/permits",
            "DELETE /api/cluster/clients",
        ),
        "cluster:admin",
    ),
}


def key(route: Route) -> str:
    return f"{route.method} {route.paths[0]}"


def every_path(*methods: str) -> Iterator[tuple[Route, str]]:
    for route in ROUTES:
        if not methods or route.method in methods:
            for path in route.paths:
                yield route, path


@pytest.fixture
async def rest() -> Rest:
    """Over a backend that answers at once."""
    return Rest()


@pytest.fixture
async def cluster() -> AsyncIterator[Rest]:
    """Over the simulated cluster."""
    async with simulated_rest() as rest:
        yield rest


def test_the_table_holds_exactly_the_documented_routes() -> None:
    assert sorted(map(key, ROUTES)) == sorted(NEEDS)


def test_no_path_and_method_stands_twice_in_the_table() -> None:
    pairs = [(route.method, path) for route, path in every_path()]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("route", ROUTES, ids=key)
def test_a_view_reads_the_query_and_body_that_the_table_declares(route: Route) -> None:
    (call, *_) = typing.get_type_hints(route.view).values()
    assert call == Call[route.query, route.body]  # type: ignore[name-defined]


@pytest.mark.parametrize("route", ROUTES, ids=key)
def test_old_and_new_paths_stand_side_by_side(route: Route) -> None:
    for path in route.paths:
        if path.startswith("/api/cluster/"):
            assert path.replace("/api/", "/admin/", 1) in route.paths
        if path.startswith("/api/auth/"):
            assert path.replace("/api/", "/api/v1/", 1) in route.paths
        if "custom-metrics" in path:
            assert path.replace("custom-metrics", "metrics") in route.paths


async def fill(rest: Rest) -> None:
    """Something of everything, so that no array in an answer is empty."""
    rest.roster.connect("c1")
    rest.events.happen(PeerChanged(event_type="added", peer_id="node-9", peer_address="127.0.0.1:7008"))
    register = {"name": "hits", "type": "counter", "help": "h", "labels": {"env": "prod"}}
    await rest.ask("POST", "/api/cluster/metrics", register)
    await rest.ask("POST", "/api/cluster/metrics", {"name": "took", "type": "histogram"})
    await rest.ask("PUT", "/api/cluster/metrics", {"name": "took", "value": 0.3})
    await rest.ask("POST", "/api/cluster/snapshot")


@pytest.mark.parametrize(("path", "shape"), GETS.items())
async def test_a_get_answers_exactly_the_documented_fields(
    autojump_clock: MockClock, cluster: Rest, path: str, shape: shapes.Shape
) -> None:
    await fill(cluster)
    (route,) = (route for route in ROUTES if route.method == "GET" and route.paths[0] == path)
    for alias in route.paths:
        response = await cluster.ask("GET", alias)
        assert (response.status_code, response.content_type) == (200, "application/json")
        shapes.check(shape, json.loads(await response.get_data()))


def test_every_get_that_answers_json_is_among_the_shapes() -> None:
    assert {
        route.paths[0] for route in ROUTES if route.method == "GET"
    } == GETS.keys() | NOT_JSON | DESCRIPTIONS


async def test_one_metric_by_name_has_the_shape_of_one_metric(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    await fill(cluster)
    for name in ("hits", "took"):
        status, body = await cluster.ask_json("GET", f"/api/cluster/custom-metrics?name={name}")
        assert (status, body["name"]) == (200, name)
        shapes.check(shapes.METRIC, body)
    assert {"buckets", "count", "sum"} <= body.keys()


def allowed(needed: str, role: str) -> bool:
    return needed == "any token" or not ROLES[role].isdisjoint({needed, "admin:*"})


@pytest.mark.parametrize("route", ROUTES, ids=key)
async def test_every_route_asks_for_its_permission_of_every_role(
    autojump_clock: MockClock, cluster: Rest, route: Route
) -> None:
    needed = NEEDS[key(route)]
    for path in (path.replace("{name}", "app.js") for path in route.paths):
        bare = await cluster.ask(route.method, path, user=None)
        forged = await cluster.ask(route.method, path, token=cluster.token()[:-8] + "AAAAAAAA")
        if needed == "nothing":
            assert bare.status_code == forged.status_code != 401
            continue
        assert (bare.status_code, await bare.get_json()) == (401, {"error": "Authentication required"})
        assert (forged.status_code, await forged.get_json()) == (401, {"error": "Invalid token"})
        assert bare.headers["WWW-Authenticate"] == forged.headers["WWW-Authenticate"] == "Bearer"
        for role in ROLES:
            answer = await cluster.ask(route.method, path, b"{}", user=role)
            if allowed(needed, role):
                assert answer.status_code in {200, 201, 400, 503}, (path, role)
            else:
                assert answer.status_code == 403, (path, role)
                assert await answer.get_json() == {"error": f"Permission required: {needed}"}


@pytest.mark.parametrize("path", sorted({path for _, path in every_path()}))
async def test_a_wrong_method_is_405_and_says_which_are_right(
    autojump_clock: MockClock, rest: Rest, path: str
) -> None:
    right = {route.method for route, other in every_path() if other == path}
    allow = ", ".join(sorted(right | {"OPTIONS"} | ({"HEAD"} if "GET" in right else set())))
    path = path.replace("{name}", "app.js")
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"} - right:
        answer = await rest.ask(method, path, user=None)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allow)
        assert await answer.get_json() == {"error": "Method not allowed"}
    options = await rest.ask("OPTIONS", path, user=None)
    assert (options.status_code, options.headers["Allow"]) == (204, allow)


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/api",
        "/api/cluster",
        "/api/cluster/",
        "/api/cluster/status/",
        "//api/cluster/status",
        "/api//cluster/status",
        "/api/cluster/Status",
        "/api/cluster/../cluster/status",
        "/api/cluster/status\0",
        "/api/cluster/status;x",
        "/admin/auth/login",
        "/api/v1/cluster/status",
        "/ws/cluster",
    ],
)
async def test_what_only_looks_like_a_route_is_404(autojump_clock: MockClock, rest: Rest, path: str) -> None:
    answer = await rest.ask("GET", path)
    assert (answer.status_code, await answer.get_json()) == (404, {"error": "Not found"})


async def test_head_answers_like_get(autojump_clock: MockClock, rest: Rest) -> None:
    assert (await rest.ask("HEAD", "/api/cluster/status")).status_code == 200
    assert (await rest.ask("HEAD", "/api/cluster/status", user=None)).status_code == 401
    assert (await rest.ask("HEAD", "/api/cluster/latency/reset")).status_code == 405


@pytest.mark.parametrize("route", ROUTES, ids=key)
async def test_every_answer_forbids_sniffing_framing_and_referring(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    for user in (None, "admin"):
        path = route.paths[0].replace("{name}", "app.js")
        headers = (await rest.ask(route.method, path, user=user)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        policy = headers["Content-Security-Policy"]
        assert "default-src" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("history?limit=0", "limit"),
        ("history?limit=1001", "limit"),
        ("history?after=1", "epoch"),
        ("history?epoch=e1", "after"),
        ("history?after=now", "after"),
        ("history?epoch=e1&after=-1", "after"),
        ("history?epoch=e1&after=9007199254740992", "after"),
        ("history?epoch=%2f&after=1", "epoch"),
        ("history?types=wars", "types"),
        ("history?types=status&filter=%7b%7d", "types"),
        ("history?filter=%7b%22wars%22:true%7d", "filter.wars"),
        ("events?after=1", "epoch"),
        ("events?epoch=e1", "after"),
        ("events?after=now&after=now", "after"),
        ("events?types=wars", "types"),
        ("events?types=status&filter=%7b%7d", "types"),
        ("events?filter=%7b", "filter"),
        ("events?filter=%7b%22wars%22:true%7d", "filter.wars"),
        (
            f"events?filter=%7b%22status%22:%7b%22min_interval%22:{'9' * 400}%7d%7d",
            "filter.status.min_interval",
        ),
        (f"events?filter=%7b%22status%22:%7b%22min_interval%22:{'9' * 5000}%7d%7d", "filter"),
        (f"events?filter=%7b%22latency%22:%7b%22peers%22:[%22{'*' * 9}%22]%7d%7d", "filter.latency.peers[0]"),
        ("uptime/history?events=ten", "events"),
        ("uptime/history?events=", "events"),
        ("uptime/history?events=1%20", "events"),
        ("uptime/history?events=" + "9" * 5000, "events"),
        ("uptime/history?events=1&events=1", "events"),
        ("snapshot/history?events=1e999", "events"),
    ],
)
async def test_a_query_parameter_out_of_range_is_named(
    autojump_clock: MockClock, rest: Rest, query: str, field: str
) -> None:
    status, body = await rest.ask_json("GET", f"/api/cluster/{query}")
    assert (status, body["field"]) == (400, field)


@pytest.mark.parametrize("query", ["%ff=1", "events=%ff", "&".join(f"a{n}=1" for n in range(100))])
async def test_a_query_string_that_cannot_be_read_is_400(
    autojump_clock: MockClock, rest: Rest, query: str
) -> None:
    status, body = await rest.ask_json("GET", f"/api/cluster/uptime/history?{query}")
    assert (status, body) == (400, {"error": "Malformed query string"})


async def test_query_parameters_in_range_are_obeyed_and_unknown_ones_ignored(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    for _ in range(3):
        await cluster.ask("PUT", "/api/cluster/metrics", {"name": "x"})
        await cluster.ask("POST", "/api/cluster/snapshot")
    _, body = await cluster.ask_json(
        "GET", "/api/cluster/snapshot/history?events=1&snapshots=2&utm_source=mail"
    )
    assert (len(body["events"]), len(body["snapshots"])) == (1, 2)


async def test_latency_of_one_peer_is_its_object_itself(autojump_clock: MockClock, cluster: Rest) -> None:
    _, every = await cluster.ask_json("GET", "/api/cluster/latency")
    _, body = await cluster.ask_json("GET", "/api/cluster/latency?peer_id=node-2")
    assert (body["peer_id"], body.keys()) == ("node-2", every["peers"]["node-2"].keys())
    status, body = await cluster.ask_json("GET", "/api/cluster/latency?peer_id=node-9")
    assert (status, body["field"]) == (404, "peer_id")


async def test_status_names_at_most_ten_sessions_and_counts_all(
    autojump_clock: MockClock, rest: Rest
) -> None:
    for number in range(12):
        rest.roster.connect(f"c{number}")
    _, body = await rest.ask_json("GET", "/api/cluster/status")
    assert body["sessions"] == {"active_count": 12, "session_ids": [f"c{number}" for number in range(10)]}


async def test_readiness_says_why_not(autojump_clock: MockClock, rest: Rest) -> None:
    rest.lone.reason = "no leader"
    answer = await rest.ask("GET", "/readyz", user=None)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert await answer.get_json() == {"ready": False, "reason": "no leader"}
    assert (await rest.ask("GET", "/healthz", user=None)).status_code == 200


async def test_readiness_says_that_events_are_not_on_disk(autojump_clock: MockClock, rest: Rest) -> None:
    rest.events.trouble = "no space left on device"
    answer = await rest.ask("GET", "/readyz", user=None)
    assert (answer.status_code, await answer.get_json()) == (
        503,
        {"ready": False, "reason": "events cannot be stored: no space left on device"},
    )
    assert b"heliosd_events_stored 0.0" in await (await rest.ask("GET", "/metrics")).get_data()


async def test_metrics_are_prometheus_text_for_readers_for_everyone_or_for_no_one(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    answer = await cluster.ask("GET", "/metrics", user="viewer")
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    assert b"heliosd_ws_clients 0" in await answer.get_data()
    cluster.configure(metrics={"public": True})
    assert (await cluster.ask("GET", "/metrics", user=None)).status_code == 200
    cluster.configure(metrics={"enabled": False})
    assert (await cluster.ask("GET", "/metrics", user=None)).status_code == 404
    cluster.configure(metrics={"enabled": False, "public": False})
    assert (await cluster.ask("GET", "/metrics", user="admin")).status_code == 404
    assert (await cluster.ask("GET", "/metrics", user=None)).status_code == 404


async def test_of_many_scrapes_at_once_one_is_answered_in_each_turn_of_the_loop(
    autojump_clock: MockClock, rest: Rest
) -> None:
    (route,) = (route for route in ROUTES if route.paths[0] == "/metrics")
    headers = {"Authorization": [f"Bearer {rest.token()}"]}
    asked = Asked(
        query_string=b"", scheme="http", peer=Address("127.0.0.1", 1), all=lambda name: headers.get(name, [])
    )
    left, turns = 30, 0

    async def scrape() -> None:
        nonlocal left
        assert (await rest.pipeline.answer(route, asked)).status == 200
        left -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(left):
            nursery.start_soon(scrape)
        while left:
            await trio.lowlevel.checkpoint()
            turns += 1
    assert turns >= 30
