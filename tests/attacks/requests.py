"""Requests that break HTTP or JSON, names that break what shows them, and changes that meet each other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import trio
from prometheus_client.parser import text_string_to_metric_families

from heliosd.web.rest.route_table import ROUTES
from tests.support.hostile_bodies import NO_OBJECTS
from tests.support.wire import upgrade

from .target import Answer, Target

METRICS = "/api/cluster/custom-metrics"
BATCH_PAUSE_SECONDS = 0.1
"""After 40 writes at once: the attack is many writes, not many connections."""
PEERS = "/api/cluster/peers"

# Each is a whole request; HOST is filled in. All get a 4xx, or the connection ends.
MALFORMED: tuple[bytes, ...] = (
    b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    *(
        b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: " + length + b"\r\n\r\nabcd"
        for length in (b"+4", b"-1", b"4,4", b"0x4", b"", b"4 4", b"9" * 40, b"4\r\nContent-Length: 5")
    ),
    b"GET / HTTP/1.1\nHost: HOST\n\n",
    b"GET / HTTP/1.1\r\nHost: HOST\rX: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: HOST\r\n folded: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : HOST\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: HOST\r\nX: a\0b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET http://other/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET /" + b"a" * 65_536 + b" HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: HOST\r\n" + b"X: y\r\n" * 1500 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: HOST\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    *(
        b"GET " + path + b" HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        for path in (b"/", b"//ws/cluster", b"/ws%2fcluster", b"/ws/cluster/", b"/api/cluster/status")
    ),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    b"\0" * 1000,
    bytes(range(256)) * 80,
    b"POST /api/auth/login HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
    b"POST /api/auth/login HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    b"POST /api/auth/login HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 70_000,
)
TRAVERSALS = (
    "/static/../../etc/passwd",
    "/static/..%2f..%2f..%2fetc%2fpasswd",
    "/static/%2e%2e/%2e%2e/etc/passwd",
    "/static//etc/passwd",
    "/static/%00",
    "/static/..%5c..%5cetc%5cpasswd",
    "/static/app.js%00.html",
    "/../etc/passwd",
    "/static/%c0%ae%c0%ae/etc/passwd",
)
RESERVED = "raft_node_state"
NAMES = (
    "",
    "..",
    ".",
    "x" * 10_000,
    "a\0b",
    "a\u202eb",
    "é",
    "e\u0301",
    "a b",
    "1a",
    "a-\n",
    'a"}',
    RESERVED,
)
MARKUP = '</script><script>alert(1)</script>"\\\n# TYPE forged counter\r\n\u2028\x1b[31m{}'
REFUSED = {0, *range(400, 500)}


async def framing(target: Target) -> None:
    """Heads and bodies that two programs could read differently, and other protocols."""
    for request in MALFORMED:
        answer = await target.send(request.replace(b"HOST", target.address.encode()))
        target.expect(repr(request[:80]), answer, REFUSED)
    for encoding in ("gzip", "br", "deflate, gzip"):
        squeezed = await target.ask("POST", METRICS, b"\x1f\x8b" + bytes(500), {"Content-Encoding": encoding})
        target.expect(f"a body in {encoding}", squeezed, {415})
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    target.expect("a form", await target.ask("POST", METRICS, b"--x--", form), {415})
    for path in TRAVERSALS:
        answer = await target.ask("GET", path)
        target.expect(path, answer, {400, 404})
        if b"root:" in answer.body:
            target.fault(f"{path}: a file of the machine")


async def addresses(target: Target) -> None:
    """Forged forwarding headers: the address that counts and is shown stays the connection's."""
    source = "127.0.5.1"
    for forged in (
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9;proto=https;host=evil"},
        {"X-Real-IP": "203.0.113.9", "X-Forwarded-Host": "evil", "X-Forwarded-Proto": "https"},
    ):
        async with target.connected(source) as stream:
            lines = "".join(f"{name}: {value}\r\n" for name, value in forged.items())
            head = upgrade(target.address, target.token).replace(b"\r\n\r\n", f"\r\n{lines}\r\n".encode())
            await stream.send_all(head)
            await stream.receive_some()
            clients = (await target.ask("GET", "/api/cluster/clients")).json()["clients"]
            shown = {client["address"].partition(":")[0] for client in clients}
            if source not in shown or "203.0.113.9" in shown:
                target.fault(f"{forged}: the clients' addresses are {shown}")


async def bodies(target: Target) -> None:
    """JSON that is none, or means two things, to every route that reads a body."""
    odd = [*NO_OBJECTS, *(f'{{"somewhere":{number}}}'.encode() for number in ("NaN", "1e999", "9" * 4000))]
    odd += [
        b'{"name":"a","name":"b"}',
        b'{"name":true}',
        b'{"value":"1"}',
        b'{"value":true}',
        b'{"surplus":1}',
    ]
    for route in ROUTES:
        if route.method == "GET":
            continue
        for body in odd:
            token = None if route.paths[0].endswith("/login") else ""
            answer = await target.ask(route.method, route.paths[0], body, token=token)
            target.expect(f"{route.method} {route.paths[0]} {body[:40]!r}", answer, {400, 413})
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "image/png"):
        odd_type = await target.ask("POST", METRICS, b'{"name":"a"}', {"Content-Type": kind})
        target.expect(f"JSON as {kind}", odd_type, {400, 415})
    target.expect("2 MiB", await target.ask("POST", METRICS, b" " * 2_000_000), {413})
    large = json.dumps({"username": "admin", "password": "x" * 1_000_000}).encode()
    target.expect("a password of 1 MB", await target.ask("POST", "/api/auth/login", large, token=None), {413})


async def queries(target: Target) -> None:
    """Cursors, filters and limits that are none."""
    for query in (
        "epoch=a&after=-1",
        "epoch=a&after=9007199254740992",
        "epoch=a&after=x",
        "after=1",
        f"epoch={'a' * 65}&after=1",
        "filter=" + '{"latency":{"min_interval":' + "9" * 400 + "}}",
        "filter=" + '{"custom_metrics":{"names":["' + "*a" * 99 + '"]}}',
        "filter=%5B%5B%5B",
        "filter=%ff",
        "types=everything",
        "&".join("a=b" for _ in range(100)),
        "%zz=%",
    ):
        for path in ("/ws/cluster", "/api/cluster/events"):
            headers = (
                {}
                if path.startswith("/api")
                else {
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                }
            )
            spelled = query.replace('"', "%22").replace("{", "%7B").replace("}", "%7D")
            if query in _HARMLESS:
                continue
            answer = await target.ask("GET", f"{path}?{spelled}", headers=headers)
            target.expect(f"{path}?{query[:50]}", answer, {400})
    for path in ("/api/cluster/history", "/api/cluster/latency"):
        for query in ("limit=1e999", "limit=" + "9" * 400, "limit=a", "limit=1&limit=2", "peer_id=%00%ff"):
            target.expect(f"{path}?{query[:30]}", await target.ask("GET", f"{path}?{query}"), {200, 400, 404})


_HARMLESS = {"&".join("a=b" for _ in range(100)), "%zz=%"}
"""Parameters of others are ignored, where they cost nothing."""


async def names(target: Target) -> None:
    """Names of metrics, labels and peers that are none; texts that would break a page, a log or the exposition."""
    for name in NAMES:
        for body in ({"name": name, "type": "gauge"}, {"name": "ok", "type": "gauge", "labels": {name: "x"}}):
            if name != RESERVED or "labels" not in body:
                answer = await _send(target, "POST", METRICS, body)
                target.expect(f"a metric {name[:20]!r}", answer, {400})
        if name not in {RESERVED, "1a"}:  # these may be peers
            peer = await _send(target, "POST", PEERS, {"id": name, "address": "127.0.0.1:1"})
            target.expect(f"a peer {name[:20]!r}", peer, {400})
    marked = {"name": "attack_markup", "type": "gauge", "help": MARKUP, "labels": {"label": MARKUP}}
    target.expect("markup in a metric", await _send(target, "POST", METRICS, marked), {201, 400})
    await target.log_in("wrong", name=MARKUP)
    exposition = await target.ask("GET", "/metrics")
    families = {family.name for family in text_string_to_metric_families(exposition.body.decode())}
    if "forged" in families or "raft_node_uptime_seconds" not in families:
        target.fault("the exposition is broken")
    for path in ("/api/cluster/status", METRICS, "/metrics"):
        answer = await target.ask("GET", path)
        if "text/html" in answer.head.lower() or "nosniff" not in answer.head.lower():
            target.fault(f"{path} could be read as a page")
    await _send(target, "DELETE", METRICS, {"name": "attack_markup"})


async def races(target: Target) -> None:
    """50 creations of one name at once; deletions during changes; resets during both; a flood of names."""
    came: list[Answer] = []

    async def send(method: str, body: Mapping[str, object], path: str = METRICS) -> None:
        came.append(await _send(target, method, path, body))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(send, "POST", {"name": "attack_race", "type": "counter"})
    made = Counter(answer.status for answer in came)
    if made[201] != 1 or set(made) - {201, 409, 503}:
        target.fault(f"50 creations of one name: {dict(made)}")
    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(send, "PUT", {"name": "attack_race", "value": number})
            if number % 20 == 10:
                nursery.start_soon(send, "DELETE", {"name": "attack_race"})
                nursery.start_soon(send, "POST", {}, f"{METRICS}/reset")
                nursery.start_soon(send, "POST", {}, "/api/cluster/snapshot")
    fill = "x" * 4000
    async with trio.open_nursery() as nursery:
        for number in range(400):
            nursery.start_soon(send, "POST", {"name": f"attack_{number}", "type": "gauge", "help": fill})
            if number % 40 == 39:
                await trio.sleep(BATCH_PAUSE_SECONDS)
    full = Counter(answer.status for answer in came)
    if set(full) - {200, 201, 400, 404, 409, 503, 507}:
        target.fault(f"changes that meet: {dict(full)}")
    async with trio.open_nursery() as nursery:
        for number in range(400):
            nursery.start_soon(send, "DELETE", {"name": f"attack_{number}"})
            if number % 40 == 39:
                await trio.sleep(BATCH_PAUSE_SECONDS)
    await send("DELETE", {"name": "attack_race"})


async def _send(target: Target, method: str, path: str, body: Mapping[str, object]) -> Answer:
    return await target.ask(method, path, json.dumps(body).encode())
