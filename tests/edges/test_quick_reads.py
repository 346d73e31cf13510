"""GETs that are answered without the web framework: the same answers as with it, over a real connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from operator import itemgetter

import pytest
import trio

from heliosd.web.http.asgi import Deadlines, serve_request
from heliosd.web.rest.quick_reads import QuickReads
from heliosd.web.rest.route_table import ROUTES
from tests.support.deadlines import SECONDS
from tests.support.front_server import Front, open_front
from tests.support.rest_server import Rest

LIMIT_SECONDS = 2 * SECONDS
DEADLINES = Deadlines()
READS = [tuple(path for path in route.paths if "{" not in path) for route in ROUTES if route.method == "GET"]
"""The names of each route that is read."""
STREAMS = {"/api/cluster/events", "/admin/cluster/events"}
MOVING = {b"date", b"content-length"}
"""What may differ between two answers: figures grow meanwhile."""


@asynccontextmanager
async def both(rest: Rest) -> AsyncIterator[tuple[Front, Front]]:
    """The quick way and the framework's, over the same services."""
    app = partial(serve_request, rest.app, DEADLINES)
    quick = QuickReads(rest.pipeline, app, DEADLINES)
    async with open_front(rest=quick.serve) as first, open_front(rest=app) as second:
        yield first, second


def split_answer(answer: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    named = dict(field.split(b": ", 1) for field in fields)
    assert len(named) == len(fields), "no header twice"
    if b"content-length" in named:
        assert int(named[b"content-length"]) == len(body)
    return line, {name: value for name, value in named.items() if name not in MOVING}, body


def shape(value: object) -> object:
    """JSON without its figures."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    return [shape(part) for part in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize(
    "paths", [paths for paths in READS if paths and not STREAMS & set(paths)], ids=itemgetter(0)
)
async def test_each_read_has_the_status_the_headers_and_the_body_that_the_framework_gives(
    paths: tuple[str, ...],
) -> None:
    """All kinds of requests for the first name of a route, and a good one for each of its others."""
    rest = Rest()
    rest.configure(server={"allowed_origins": ("https://ops.example",)})
    bearer = f"Authorization: Bearer {rest.token()}\r\n"
    callers = (
        bearer,
        "",
        "Authorization: Bearer wrong\r\n",
        f"Authorization: Bearer {rest.token('nobody')}\r\n",
        f"{bearer}Origin: https://ops.example\r\n",
        f"{bearer}Origin: https://evil.example\r\n",
    )
    first, *others = paths
    kinds = [
        (f"{first}{query}", caller)
        for caller in callers
        for query in ("", "?limit=1&limit=2", "?limit=x", "?%ff")
    ]
    with trio.fail_after(LIMIT_SECONDS):
        async with both(rest) as (quick, framework):
            for target, caller in [*kinds, *((other, bearer) for other in others)]:
                request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{caller}\r\n"
                one, two = [split_answer(await front.ask(request.encode())) for front in (quick, framework)]
                assert one[:2] == two[:2]
                if one[1][b"content-type"] == b"application/json" and one[2] != two[2]:
                    assert shape(json.loads(one[2])) == shape(json.loads(two[2]))
