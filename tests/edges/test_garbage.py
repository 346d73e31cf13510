"""Clients and requests that come and go leave nothing behind that only the garbage collector could free."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.rest_server import simulated_rest
from tests.support.whole_daemon import RunningDaemon, whole_daemon

CLIENTS = 40


@contextmanager
def garbage() -> Iterator[list[Any]]:
    """What the block leaves in cycles; to be read after it, until the next collection."""
    left: list[Any] = []
    gc.collect()
    gc.disable()
    try:
        yield left
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def visit(house: RunningDaemon) -> None:
    client = await house.connect({})
    assert await client.text() is not None
    await client.stream.aclose()


REQUESTS = {
    "POST /api/cluster/custom-metrics": '{"name":"visits","type":"gauge"}',
    "DELETE /api/cluster/custom-metrics?name=visits": "",
    "DELETE /api/cluster/custom-metrics?name=unknown": "",
    "PUT /api/cluster/custom-metrics": "no JSON",
    "GET /static/unknown.js": "",
    "GET /nowhere": "",
    "PATCH /api/cluster/status": "",
}


async def request(house: RunningDaemon, line: str, body: str) -> bytes:
    """The status line of the answer."""
    async with await trio.open_tcp_stream("127.0.0.1", house.port) as stream:
        await stream.send_all(
            f"{line} HTTP/1.1\r\nHost: {house.address}\r\nAuthorization: Bearer {house.token}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        answer = b"".join([piece async for piece in stream])
    return answer.partition(b"\r\n")[0]


async def test_clients_that_come_and_go_leave_no_cycles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(60):
        async with whole_daemon(tmp_path, monkeypatch) as house:
            await visit(house)
            with garbage() as left:
                for _ in range(CLIENTS):
                    await visit(house)
    ours = [thing for thing in left if type(thing).__module__.startswith("heliosd")]
    # One each would be forty; the simulated source's own odds and ends are none of theirs.
    assert len(ours) < CLIENTS / 4, ours


async def test_requests_leave_no_cycles_whether_they_are_refused_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(60):
        async with whole_daemon(tmp_path, monkeypatch) as house:
            answers = [await request(house, line, body) for line, body in REQUESTS.items()]
            assert [int(answer.split()[1]) for answer in answers] == [201, 200, 404, 400, 404, 404, 405]
            with garbage() as left:
                for _ in range(CLIENTS):
                    for line, body in REQUESTS.items():
                        await request(house, line, body)
    # A cycle after one of the seven is at least two objects, forty times.
    assert len(left) < CLIENTS, [type(thing) for thing in left[:50]]


async def test_a_write_that_the_cluster_refuses_leaves_no_cycle(autojump_clock: MockClock) -> None:
    async with simulated_rest() as rest:
        with garbage() as left:
            for _ in range(CLIENTS):
                assert (await rest.ask_json("DELETE", "/api/cluster/custom-metrics?name=unknown"))[0] == 404
    errors = [thing for thing in left if isinstance(thing, Exception)]
    assert len(errors) < CLIENTS / 4, errors
