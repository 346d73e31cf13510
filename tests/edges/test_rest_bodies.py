"""Bodies that no honest client sends, to every route that reads one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, structs
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.errors import Invalid
from heliosd.web.rest.body_reader import BODY_SECONDS, SHARED_BYTES
from heliosd.web.rest.request_data import MAX_BODY_BYTES, MAX_VALUES, read_body
from heliosd.web.rest.route import Route
from heliosd.web.rest.route_table import ROUTES
from tests.support.hostile_bodies import NO_OBJECTS
from tests.support.rest_server import Rest

READERS = [route for route in ROUTES if route.method != "GET"]
VALID: dict[str, dict[str, object]] = {
    "Credentials": {"username": "admin", "password": "x"},
    "Logout": {},
    "Nothing": {},
    "NewPeer": {"id": "node-9", "address": "127.0.0.1:7009"},
    "ById": {"id": "node-2"},
    "NewMetric": {"name": "fresh", "type": "gauge"},
    "MetricChange": {"name": "fresh", "value": 1.0},
    "ByName": {"name": "fresh"},
    "Transfer": {"target": "node-2"},
    "WantedPermit": {"member": "node-2"},
    "Renewal": {"id": "p"},
    "FaultChange": {},
}


@pytest.fixture
async def rest() -> Rest:
    return Rest()


def key(route: Route) -> str:
    return f"{route.method} {route.paths[0]}"


readers = pytest.mark.parametrize("route", READERS, ids=key)


async def refused(rest: Rest, route: Route, body: bytes) -> dict[str, Any]:
    before = rest.lone.index
    status, answer = await rest.ask_json(route.method, route.paths[0], body)
    assert status == 400, (body[:60], answer)
    assert set(answer) <= {"error", "field"}
    assert rest.lone.index == before, "nothing was written"
    return dict(answer)


@readers
async def test_what_is_no_json_object_is_refused(autojump_clock: MockClock, rest: Rest, route: Route) -> None:
    for body in NO_OBJECTS:
        if len(body) <= route.max_body_bytes:
            await refused(rest, route, body)


@readers
async def test_an_unknown_field_is_refused_and_named(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    if route.body.__name__ == "Credentials":
        return  # Helios' clients send more than a login needs: test_old_clients.py
    body = {**VALID[route.body.__name__], "surplus": 1}
    answer = await refused(rest, route, json.dumps(body).encode())
    assert answer == {"error": "Unknown field", "field": "surplus"}


@readers
async def test_a_number_that_no_one_can_store_is_refused_and_named(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    for number in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 4_000, "[[NaN]]"):
        answer = await refused(rest, route, f'{{"somewhere":{number}}}'.encode())
        assert answer == {"error": "Number out of range", "field": "somewhere"}


@readers
async def test_a_key_given_twice_is_refused_and_named(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    for name in (field.encode_name for field in structs.fields(route.body)):
        answer = await refused(rest, route, f'{{"{name}":"a","{name}":"a"}}'.encode())
        assert answer == {"error": "Duplicate key", "field": name}


@readers
async def test_half_a_surrogate_pair_is_refused_and_named(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    answer = await refused(rest, route, b'{"deep":["\\udfff"]}')
    assert answer == {"error": "Half a surrogate pair", "field": "deep"}


WRONG: dict[str, list[object]] = {
    "text": [1, True, None, [], {}, 1.5],
    "number": ["1", True, False, None, [], {}],
    "duration": ["1", "soon", True, False, None, [], {}],
    "texts": ["a", 1, None, [], {"a": 1}, {"a": None}],
    "names": ["a", 1, None, {}, [1], [True], [None]],
    "groups": ["a", 1, None, {}, ["a"], [[1]], [None]],
    "shares": ["a", 1, None, [], {"a": "1"}, {"a": True}, {"a": None}],
    "numbers": ["a", 1, None, {}, ["1"], [True], [None]],
}
FIELDS = {
    **dict.fromkeys(
        ("username", "password", "jti", "id", "address", "name", "type", "help", "target", "member"), "text"
    ),
    **dict.fromkeys(("value", "delta", "seconds", "loss", "latency_ms"), "number"),
    **dict.fromkeys(("crashed", "paused"), "names"),
    **dict.fromkeys(("disk_latency_ms", "clock_rate", "clock_offset_ms"), "shares"),
    "partitions": "groups",
    "ttl": "duration",
    "labels": "texts",
    "buckets": "numbers",
}


@readers
async def test_a_wrong_type_is_refused_and_its_field_named(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    required = {field.encode_name for field in structs.fields(route.body) if field.required}
    for name in (field.encode_name for field in structs.fields(route.body)):
        optional = name not in required
        for value in WRONG[FIELDS[name]]:
            if value is None and optional:
                continue
            body = {**VALID[route.body.__name__], name: value}
            answer = await refused(rest, route, json.dumps(body).encode())
            assert answer["field"] == name, (name, value, answer)


@readers
async def test_a_missing_field_is_refused_and_named(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    for field in structs.fields(route.body):
        if field.required:
            body = {k: v for k, v in VALID[route.body.__name__].items() if k != field.encode_name}
            answer = await refused(rest, route, json.dumps(body).encode())
            assert answer == {"error": "Missing field", "field": field.encode_name}


@readers
async def test_an_empty_body_does_where_every_field_is_optional(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    if any(field.required for field in structs.fields(route.body)):
        await refused(rest, route, b"")
    elif route.method == "POST":
        for body in (b"", b" \r\n", b"{}"):
            answer = await rest.ask(route.method, route.paths[0], body, token=rest.token())
            assert answer.status_code == route.status


@readers
async def test_a_body_over_one_mebibyte_is_413_and_one_of_that_size_is_read(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    limit = route.max_body_bytes
    status, answer = await rest.ask_json(route.method, route.paths[0], b" " * (limit + 1))
    size = "4 KiB" if route.paths[0] == "/api/auth/login" else "1 MiB"
    assert (status, answer) == (413, {"error": f"The body is larger than {size}"})
    await refused(rest, route, b" " * (limit - 1) + b"x")


async def test_a_body_of_more_values_than_any_request_has_is_refused_before_it_is_parsed(
    autojump_clock: MockClock, rest: Rest
) -> None:
    body = b'{"name":[' + b"0," * (MAX_VALUES + 1) + b"0]}"
    status, answer = await rest.ask_json("POST", "/api/cluster/metrics", body)
    assert (status, answer) == (400, {"error": f"The body has more than {MAX_VALUES} values"})


async def test_bodies_that_are_being_received_share_a_limit(autojump_clock: MockClock, rest: Rest) -> None:
    half = b" " * (MAX_BODY_BYTES // 2)
    token = rest.token()
    statuses: list[int] = []

    async def send(ends: trio.Event) -> None:
        statuses.append(await rest.send_slowly("POST", "/api/cluster/metrics", token, half, ends))

    ends = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(2 * SHARED_BYTES // MAX_BODY_BYTES + 3):
            nursery.start_soon(send, ends)
        await wait_all_tasks_blocked()
        assert statuses == [503] * 3
        ends.set()
    assert statuses.count(400) == 2 * SHARED_BYTES // MAX_BODY_BYTES
    again = trio.Event()
    again.set()
    await send(again)
    assert statuses[-1] == 400


async def test_a_body_that_does_not_come_to_its_end_is_408(autojump_clock: MockClock, rest: Rest) -> None:
    status = await rest.send_slowly("POST", "/api/cluster/metrics", rest.token(), b"{", trio.Event())
    assert (status, trio.current_time()) == (408, BODY_SECONDS)


@readers
async def test_multipart_and_compressed_bodies_are_415(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    for headers in ({"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Encoding": "gzip"}):
        answer = await rest.ask(route.method, route.paths[0], b"{}", headers=headers)
        assert answer.status_code == 415


@pytest.mark.parametrize(
    "media_type", ["", "application/json", "application/x-www-form-urlencoded", "text/plain", "nonsense"]
)
async def test_json_is_read_whatever_it_calls_itself(
    autojump_clock: MockClock, rest: Rest, media_type: str
) -> None:
    body = json.dumps({"name": "fresh", "type": "gauge"}).encode()
    answer = await rest.ask("POST", "/api/cluster/metrics", body, headers={"Content-Type": media_type})
    assert answer.status_code == 201


@pytest.mark.parametrize("route", READERS, ids=key)
async def test_a_body_is_not_read_before_the_token(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    if route.paths[0] != "/api/auth/login":
        answer = await rest.ask(route.method, route.paths[0], b" " * (MAX_BODY_BYTES + 1), user=None)
        assert answer.status_code == 401


LONG = "a" * 10_240
NAMES = ["", " ", ".", "..", "../x", "a/b", "a b", "-a", LONG, "a\0", "a\n", "\u202ea", "é", "e\u0301", "<b>"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:12]))
async def test_a_peers_id_is_plain_and_short(autojump_clock: MockClock, rest: Rest, name: str) -> None:
    for method, path, body in (
        ("POST", "/api/cluster/peers", {"id": name, "address": "127.0.0.1:7009"}),
        ("DELETE", "/api/cluster/peers", {"id": name}),
    ):
        status, answer = await rest.ask_json(method, path, body)
        assert (status, answer["field"]) == (400, "id")
    status, answer = await rest.ask_json("POST", "/api/cluster/leadership/transfer", {"target": name})
    assert (status, answer["field"]) == (400, "target")


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":7000",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "host:-1",
        "host:+1",
        "host:１",
        "host:7000 ",
        " host:7000",
        "ho st:7000",
        "host\0:7000",
        "host\n:7000",
        "::1:7000",
        "[::1]",
        "[::g]:7000",
        "[::1]:7000\n",
        "http://host:7000",
        "user@host:7000",
        "<b>:7000",
        "h" * 10_240 + ":7000",
    ],
    ids=lambda address: repr(address[:14]),
)
async def test_a_peers_address_is_host_and_port(autojump_clock: MockClock, rest: Rest, address: str) -> None:
    status, answer = await rest.ask_json("POST", "/api/cluster/peers", {"id": "node-9", "address": address})
    assert (status, answer["field"]) == (400, "address")


@pytest.mark.parametrize("address", ["127.0.0.1:7009", "[::1]:7009", "db-1.example.com:65535", "localhost:1"])
async def test_an_address_may_be_a_name_or_either_kind_of_ip(
    autojump_clock: MockClock, rest: Rest, address: str
) -> None:
    status, _ = await rest.ask_json("POST", "/api/cluster/peers", {"id": "node-9", "address": address})
    assert status == 201


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *(({"name": name}, "name") for name in NAMES),
        *(({"name": f"{prefix}x"}, "name") for prefix in ("__", "raft_", "heliosd_", "process_", "python_")),
        ({"type": "summary"}, "type"),
        ({"type": ""}, "type"),
        ({"help": "h" * 4_097}, "help"),
        ({"help": "\0"}, "help"),
        ({"labels": {"": "a"}}, "labels"),
        ({"labels": {"a-b": "a"}}, "labels"),
        ({"labels": {"a\n": "a"}}, "labels"),
        ({"labels": {"__name__": "a"}}, "labels"),
        ({"buckets": [1]}, "buckets"),
        ({"type": "histogram", "buckets": [2, 1]}, "buckets"),
        ({"type": "histogram", "buckets": []}, "buckets"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_metric_that_prometheus_could_not_show_is_refused(
    autojump_clock: MockClock, rest: Rest, change: dict[str, object], field: str
) -> None:
    body = {**VALID["NewMetric"], **change}
    status, answer = await rest.ask_json("POST", "/api/cluster/custom-metrics", body)
    assert (status, answer["field"]) == (400, field)


async def test_hostile_text_comes_back_as_data_only(autojump_clock: MockClock, rest: Rest) -> None:
    hostile = "</script><img src=x onerror=alert(1)>\u2028\x1b[31m\r\n\"'\\"
    body = {"name": "m", "type": "gauge", "help": hostile, "labels": {"a": hostile}}
    assert (await rest.ask("POST", "/api/cluster/metrics", body)).status_code == 201
    answer = await rest.ask("GET", "/api/cluster/metrics?name=m")
    assert answer.content_type == "application/json"
    answered = json.loads(await answer.get_data())
    assert (answered["help"], answered["labels"]) == (hostile, {"a": hostile})


class _Small(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    value: float = 0.0


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_being_refused(raw: bytes) -> None:
    try:
        read_body(raw, _Small)
    except Invalid as error:
        json.dumps({"error": error.message, "field": error.field}).encode()
        (error.message + (error.field or "")).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["name", "value", "other"]), json_values, max_size=3))
def test_only_the_exact_shape_is_read_and_every_refusal_can_be_sent(body: dict[str, object]) -> None:
    try:
        read = read_body(json.dumps(body).encode(), _Small)
    except Invalid as error:
        (error.message + (error.field or "")).encode()
    else:
        assert body.keys() <= {"name", "value"}
        assert read.name == body["name"]
        assert not isinstance(body.get("value"), bool | str)
