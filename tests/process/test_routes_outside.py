"""Every route of the table over a real socket: who may use it, which methods it knows, what exactly it answers."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from heliosd.config.model import DEFAULT_ROLES
from heliosd.web.rest.route import Route
from heliosd.web.rest.route_table import ROUTES
from tests.support import rest_shapes as shapes
from tests.support.daemon_process import Daemon, running, wait_until
from tests.support.deadlines import SECONDS

METHODS = {"GET", "POST", "PUT", "DELETE", "PATCH"}
CALLERS = ("admin", "viewer", "nobody")
PATHS = sorted({path for route in ROUTES for path in route.paths})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("routes")) as started:
        yield started


@pytest.fixture(scope="module")
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    """Without a token, and without the session of an earlier answer."""
    with httpx.Client(base_url=daemon.url, timeout=SECONDS, verify=False) as client:
        client.event_hooks["response"].append(lambda _: client.cookies.clear())
        yield client


@pytest.fixture(scope="module")
def tokens(daemon: Daemon) -> dict[str, str]:
    return {caller: daemon.token(caller) for caller in CALLERS}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def named(path: str) -> str:
    return path.replace("{name}", "app.js")


def may(caller: str, permission: str | None) -> bool:
    roles = {"admin": DEFAULT_ROLES["admin"], "viewer": DEFAULT_ROLES["viewer"]}
    return permission is None or not roles.get(caller, frozenset()).isdisjoint({permission, "admin:*"})


def needs_token(route: Route) -> bool:
    return route.permission is not None or route.paths[0] in {
        "/api/auth/refresh",
        "/api/auth/logout",
        "/api/auth/session",
        "/api/auth/ticket",
        "/api/auth/me",
    }


def asked(http: httpx.Client, route: Route, path: str, token: str) -> httpx.Response:
    """Of a stream, which has no end, the beginning."""
    http.cookies.clear()  # of a session that was begun
    with http.stream(route.method, path, headers=bearer(token)) as answer:
        if not path.endswith("/events") or not answer.is_success:
            answer.read()
    return answer


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.paths[0]}")
def test_each_role_is_let_in_or_kept_out(
    daemon: Daemon, http: httpx.Client, tokens: dict[str, str], route: Route
) -> None:
    for path in map(named, route.paths):
        if not needs_token(route):
            assert http.request(route.method, path).status_code not in {401, 403, 404, 405}
            continue
        http.cookies.clear()
        bare = http.request(route.method, path)
        assert (bare.status_code, bare.json()) == (401, {"error": "Authentication required"})
        forged = http.request(route.method, path, headers=bearer(tokens["admin"][:-8] + "AAAAAAAA"))
        assert (forged.status_code, forged.json()) == (401, {"error": "Invalid token"})
        for caller in CALLERS:
            # A logout ends the token that asks for it, and no other.
            token = daemon.token(caller) if path.endswith("/logout") else tokens[caller]
            answer = asked(http, route, path, token)
            if may(caller, route.permission):
                # Without a body some are refused, and right after a change of leaders others, too.
                assert answer.status_code in {route.status, 400, 503}, (path, caller, answer.text)
            else:
                assert answer.status_code == 403, (path, caller)
                assert answer.json() == {"error": f"Permission required: {route.permission}"}


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_method_is_405_and_says_which_are_right(http: httpx.Client, path: str) -> None:
    right = {route.method for route in ROUTES if path in route.paths}
    allow = right | {"OPTIONS"} | ({"HEAD"} if "GET" in right else set())
    for method in METHODS - right:
        answer = http.request(method, named(path))
        assert answer.status_code == 405
        assert set(answer.headers["Allow"].split(", ")) == allow
        assert answer.json() == {"error": "Method not allowed"}


@pytest.fixture(scope="module")
def filled(daemon: Daemon, http: httpx.Client, tokens: dict[str, str]) -> Iterator[None]:
    """Something of everything, so that no array in an answer is empty."""
    daemon.wait_ready()
    metrics = "/api/cluster/custom-metrics"
    label = {"name": "hits", "type": "counter", "help": "h", "labels": {"env": "prod"}}
    for method, path, body in (
        ("POST", metrics, label),
        ("POST", metrics, {"name": "took", "type": "histogram"}),
        ("PUT", metrics, {"name": "took", "value": 0.3}),
        ("POST", "/api/cluster/snapshot", None),
    ):
        assert http.request(method, path, json=body, headers=bearer(tokens["admin"])).is_success
    with daemon.connect(tokens["admin"]):
        wait_until(
            lambda: http.get("/api/cluster/clients", headers=bearer(tokens["viewer"])).json()["total"] == 1
        )
        yield


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("path", shapes.BY_PATH)
def test_a_get_answers_exactly_the_documented_fields_under_each_of_its_paths(
    http: httpx.Client, tokens: dict[str, str], path: str
) -> None:
    (route,) = (route for route in ROUTES if route.method == "GET" and route.paths[0] == path)
    for alias in route.paths:
        answer = http.get(alias, headers=bearer(tokens["viewer"]))
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        shapes.check(shapes.BY_PATH[path], answer.json())


def test_every_get_that_needs_a_token_is_among_the_shapes_but_text_and_streams() -> None:
    asked = {route.paths[0] for route in ROUTES if route.method == "GET" and needs_token(route)}
    assert asked == shapes.BY_PATH.keys() | {"/metrics", "/api/cluster/events"}


def test_prometheus_gets_its_text(http: httpx.Client, tokens: dict[str, str]) -> None:
    answer = http.get("/metrics", headers=bearer(tokens["viewer"]))
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "\nraft_node_uptime_seconds{" in answer.text


def test_the_pages_come_with_a_policy_that_allows_nothing_unsafe(http: httpx.Client) -> None:
    for path, media_type in (("/", "text/html"), ("/static/app.js", "text/javascript")):
        answer = http.get(path)
        assert answer.headers["Content-Type"].startswith(media_type)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src" in policy
        assert "frame-ancestors" in policy
        assert "unsafe" not in policy


def test_all_of_that_left_no_error_in_the_log(daemon: Daemon) -> None:
    assert [line for line in daemon.lines if line.get("level") in {"error", "critical"}] == []
    assert daemon.stop() == 0
