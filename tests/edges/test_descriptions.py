"""What `/openapi.json` and `/asyncapi.json` say, held against what the daemon does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from trio.testing import MockClock

from heliosd.protocol.client_commands import COMMANDS, BadCommand, parse
from heliosd.protocol.close_codes import CLOSE_CODES
from heliosd.protocol.events import PeerChanged, Stamped, StateChanged
from heliosd.protocol.message_data import MESSAGES
from heliosd.protocol.server_messages import of_event
from heliosd.protocol.subscription import KEYS
from tests.support.described import checker, undescribed
from tests.support.rest_server import Rest, simulated_rest

API = "/api/cluster"
METRIC = {"name": "hits", "type": "counter", "help": "h", "labels": {"env": "prod"}}
ASKED: list[tuple[str, str, Any]] = [
    ("POST", "/api/auth/login", {"username": "admin", "password": "wrong"}),
    ("POST", "/api/auth/refresh", None),
    ("POST", "/api/auth/ticket", None),
    ("GET", "/api/auth/me", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("POST", f"{API}/custom-metrics", METRIC),
    ("POST", f"{API}/custom-metrics", {"name": "took", "type": "histogram"}),
    ("POST", f"{API}/custom-metrics", {"name": "hits"}),
    ("PUT", f"{API}/custom-metrics", {"name": "took", "value": 0.3}),
    ("PUT", f"{API}/custom-metrics", {"name": "unknown"}),
    ("GET", f"{API}/custom-metrics", None),
    ("GET", f"{API}/custom-metrics?name=took", None),
    ("POST", f"{API}/snapshot", None),
    ("GET", f"{API}/snapshot", None),
    ("GET", f"{API}/snapshot/history", None),
    ("GET", f"{API}/status", None),
    ("GET", f"{API}/peers", None),
    ("GET", f"{API}/latency", None),
    ("GET", f"{API}/latency?peer_id=node-2", None),
    ("GET", f"{API}/uptime", None),
    ("GET", f"{API}/uptime/history", None),
    ("GET", f"{API}/history", None),
    ("GET", f"{API}/history?epoch=other&after=1", None),
    ("GET", f"{API}/clients", None),
    ("GET", f"{API}/simulation", None),
    ("PUT", f"{API}/simulation", {"loss": 0.0}),
    ("GET", f"{API}/permits", None),
    ("POST", f"{API}/latency/reset", None),
    ("POST", f"{API}/leadership/transfer", {"target": "nobody"}),
    ("DELETE", f"{API}/custom-metrics?name=hits", None),
    ("DELETE", f"{API}/clients?id=c1", None),
]


@pytest.fixture
async def cluster() -> AsyncIterator[Rest]:
    async with simulated_rest() as rest:
        yield rest


async def document(rest: Rest, name: str) -> dict[str, Any]:
    status, body = await rest.ask_json("GET", f"/{name}.json", user=None)
    assert status == 200
    described: dict[str, Any] = body
    return described


async def test_openapi_is_valid_and_has_every_path_with_its_methods(cluster: Rest) -> None:
    # Its import costs half a second, which only the process that runs this test shall pay.
    from openapi_spec_validator import validate

    described = await document(cluster, "openapi")
    validate(described)
    served: dict[str, set[str]] = {}
    for rule in cluster.app.url_map.iter_rules():
        methods = {method.lower() for method in rule.methods or () if method not in {"HEAD", "OPTIONS"}}
        served.setdefault(rule.rule.replace("<name>", "{name}"), set()).update(methods)
    assert {path: set(item) for path, item in described["paths"].items()} == served


async def test_every_answer_is_as_openapi_describes_it(autojump_clock: MockClock, cluster: Rest) -> None:
    described = await document(cluster, "openapi")
    cluster.roster.connect("c1")
    cluster.events.happen(PeerChanged(event_type="added", peer_id="node-9", peer_address="127.0.0.1:7008"))
    for method, path, body in ASKED:
        status, answer = await cluster.ask_json(method, path, body)
        responses = described["paths"][path.partition("?")[0]][method.lower()]["responses"]
        response = responses[str(status)]  # not "default": what happens in the ordinary course is named
        if "$ref" in response:
            response = described["components"]["responses"][str(status)]
        schema = response["content"]["application/json"]["schema"]
        checker(described, schema).validate(answer)
        assert list(undescribed(described, schema, answer)) == [], (method, path)


async def test_fields_are_explained_by_what_stands_under_them_in_the_code(cluster: Rest) -> None:
    for name in ("openapi", "asyncapi"):
        shapes = (await document(cluster, name))["components"]["schemas"]
        assert shapes["MetricView"]["properties"]["bucket_counts"]["description"].startswith(
            "Observations up to"
        )
    assert (
        shapes["StatusData"]["properties"]["leader"]["description"] == 'The leader\'s id; "": none is known.'
    )


async def test_asyncapi_has_every_message_command_and_close_code(cluster: Rest) -> None:
    described = await document(cluster, "asyncapi")
    assert described["asyncapi"] == "3.0.0"
    messages = described["components"]["messages"].values()
    sent = {name for name in described["components"]["messages"] if name.endswith("_message")}
    assert {name.removesuffix("_message") for name in sent} == set(MESSAGES)
    assert {m["name"] for m in messages} == {*MESSAGES, *COMMANDS}
    assert set(described["channels"]["cluster"]["x-close-codes"]) == {str(code) for code in CLOSE_CODES}
    topics = described["components"]["schemas"]["SubscribeData"]["properties"]
    assert list(topics) == list(KEYS)


def test_every_command_that_is_described_is_understood() -> None:
    data = {"auth": {"token": "t"}, "subscribe": {"status": True}}
    for name in COMMANDS:
        parse(json.dumps({"type": name, "id": 1, "data": data.get(name)} if name in data else {"type": name}))
    with pytest.raises(BadCommand):
        parse('{"type":"other"}')


async def test_the_descriptions_are_not_sent_again_to_who_has_them(cluster: Rest) -> None:
    for name in ("openapi", "asyncapi"):
        first = await cluster.ask("GET", f"/{name}.json", user=None)
        again = await cluster.ask(
            "GET", f"/{name}.json", user=None, headers={"If-None-Match": first.headers["ETag"]}
        )
        assert (first.status_code, again.status_code) == (200, 304)


async def test_the_shape_of_a_state_change_is_what_is_sent(cluster: Rest) -> None:
    described = await document(cluster, "asyncapi")
    event = StateChanged(
        old_state="Leader",
        new_state="Follower",
        term=3,
        leader="",
        member="m",
        cause="stopped",
        observed_at=1.0,
        evidence={"last_answer_ms": 8.0},
        terms_unseen=(1, 2),
        member_name="n",
    )
    sent = json.loads(of_event(Stamped(7, 2.0, event)).payload)
    schema = described["components"]["messages"]["state_change_message"]["payload"]
    checker(described, schema).validate(sent)
    assert list(undescribed(described, schema, sent)) == []
