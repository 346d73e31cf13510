"""What stands in the log of an administrator's acts, and the ids of requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from tests.support.rest_server import Rest

PEERS = "/api/cluster/peers"


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as found:
        yield found


@pytest.fixture
async def rest(autojump_clock: MockClock) -> Rest:
    return Rest()


def acts(lines: list[Any]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] in {"audit", "act refused"}]


async def test_an_act_is_logged_with_who_from_where_what_and_the_result(
    autojump_clock: MockClock, rest: Rest, lines: list[Any]
) -> None:
    body = {"id": "node-4", "address": "127.0.0.1:7003"}
    answer = await rest.ask("POST", PEERS, body, address="192.0.2.7")
    assert answer.status_code == 201
    (line,) = acts(lines)
    assert line["address"].startswith("192.0.2.7")
    assert line["request_id"] == answer.headers["X-Request-Id"]
    assert {name: line[name] for name in ("event", "user", "act", "fields", "status")} == {
        "event": "audit",
        "user": "admin",
        "act": f"POST {PEERS}",
        "fields": body,
        "status": 201,
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", PEERS, {"id": "node-2", "address": "127.0.0.1:9"}, 409, "Peer already exists: node-2"),
        ("DELETE", f"{PEERS}?id=node-9", None, 404, "Unknown peer"),
        ("POST", "/admin/cluster/uptime/reset", None, 200, ""),
        ("POST", "/api/cluster/snapshot", None, 201, ""),
        ("POST", "/api/cluster/leadership/transfer", {"target": "node-2"}, 200, ""),
        ("DELETE", "/api/cluster/clients?id=c9", None, 404, "Unknown client"),
    ],
)
async def test_every_act_is_logged_also_one_that_changes_nothing(
    autojump_clock: MockClock,
    rest: Rest,
    lines: list[Any],
    method: str,
    path: str,
    body: object,
    status: int,
    reason: str,
) -> None:
    await rest.ask(method, path, body)
    (line,) = acts(lines)
    assert (line["event"], line["status"], line.get("reason", "")) == ("audit", status, reason)


async def test_a_refused_act_with_a_key_has_its_reason_also_when_it_is_repeated(
    autojump_clock: MockClock, rest: Rest, lines: list[Any]
) -> None:
    for _ in range(2):
        body = {"id": "node-2", "address": "127.0.0.1:9"}
        answer = await rest.ask("POST", PEERS, body, headers={"Idempotency-Key": "k1"})
        assert answer.status_code == 409
    assert [line["reason"] for line in acts(lines)] == ["Peer already exists: node-2"] * 2


async def test_the_end_of_a_browsers_session_is_an_act(
    autojump_clock: MockClock, rest: Rest, lines: list[Any]
) -> None:
    own = {"Origin": "http://localhost", "Host": "localhost"}
    answer = await rest.ask("POST", "/api/auth/session", user="viewer", headers=own)
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    await rest.ask("DELETE", "/api/auth/session", user=None, headers={"Cookie": cookie, **own})
    (line,) = acts(lines)
    assert (line["user"], line["act"], line["status"]) == ("viewer", "DELETE /api/auth/session", 200)


async def test_attempts_without_the_right_are_logged_as_refused(
    autojump_clock: MockClock, rest: Rest, lines: list[Any]
) -> None:
    await rest.ask("POST", "/api/cluster/uptime/reset", user="viewer")
    await rest.ask("POST", "/api/cluster/uptime/reset", token="x.y.z")
    found = [(line["event"], line["user"], line["status"]) for line in acts(lines)]
    assert found == [("act refused", "viewer", 403), ("act refused", "", 401)]


async def test_a_token_of_somebody_else_that_is_revoked_is_an_act(
    autojump_clock: MockClock, rest: Rest, lines: list[Any]
) -> None:
    await rest.ask("POST", "/api/auth/logout", {"jti": "somebody-elses"})
    (line,) = acts(lines)
    assert (line["act"], line["fields"]) == ("POST /api/auth/logout", {"jti": "somebody-elses"})


async def test_reads_and_values_of_metrics_are_no_acts(
    autojump_clock: MockClock, rest: Rest, lines: list[Any]
) -> None:
    await rest.ask("GET", PEERS)
    await rest.ask("POST", "/api/cluster/custom-metrics", {"name": "a", "type": "gauge"})
    await rest.ask("PUT", "/api/cluster/custom-metrics", {"name": "a", "value": 1})
    assert acts(lines) == []


async def test_an_act_whose_outcome_nobody_waited_for_is_logged(
    autojump_clock: MockClock, rest: Rest, lines: list[Any]
) -> None:
    rest.lone.stuck = True
    with trio.move_on_after(1):
        await rest.ask("POST", PEERS, {"id": "node-4", "address": "127.0.0.1:7003"})
    (line,) = acts(lines)
    assert (line["user"], line["status"]) == ("admin", None)


async def test_a_long_field_is_cut(autojump_clock: MockClock, rest: Rest, lines: list[Any]) -> None:
    await rest.ask("DELETE", PEERS, {"id": "x" * 5000})
    (line,) = acts(lines)
    assert len(line["fields"]["id"]) == 201


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("é", False)]
)
async def test_a_request_has_the_clients_id_if_it_is_plain_else_one_of_its_own(
    autojump_clock: MockClock, rest: Rest, given: str, kept: bool
) -> None:
    for method, path in (("GET", PEERS), ("POST", "/api/cluster/uptime/reset")):
        answer = await rest.ask(method, path, headers={"X-Request-Id": given})
        found = answer.headers["X-Request-Id"]
        assert (found == given) == kept
        assert kept or re.fullmatch("[0-9a-f]{16}", found)


async def test_a_failure_has_the_same_id_in_the_answer_and_in_every_line(
    autojump_clock: MockClock, rest: Rest, lines: list[Any]
) -> None:
    rest.lone.trouble = RuntimeError("a bug")
    answer = await rest.ask("POST", PEERS, {"id": "node-4", "address": "127.0.0.1:7003"})
    body = await answer.get_json()
    assert answer.status_code == 500
    ids = {line["request_id"] for line in lines} | {body["request_id"], answer.headers["X-Request-Id"]}
    assert len(ids) == 1
    assert {line["event"] for line in lines} == {"request failed", "audit"}
    assert structlog.contextvars.get_contextvars() == {}
