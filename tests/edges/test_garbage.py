"""Clients and requests that come and go leave nothing behind that only the garbage collector could free."""

from __future__ import annotations

import gc
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.errors import EtcdError, EtcdUnavailable
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.config.model import EtcdConfig
from tests.support.answering_member import FULL, STATUS, A, AnsweringMember
from tests.support.rest_server import simulated_rest
from tests.support.whole_daemon import RunningDaemon, whole_daemon
from tests.support.wire import BINARY, CLOSE, PING, TEXT, masked

CLIENTS = 40


@contextmanager
def without_collector() -> Iterator[Counter[str]]:
    """Counts what the garbage collector finds when the block ends, by the names of its types. `gc.garbage` would
    not have what a generator's end frees."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        before = Counter(type_names())
        gc.collect()
        found.update(before - Counter(type_names()))
    finally:
        gc.enable()


def type_names() -> Iterator[str]:
    """Of all that it looks at, but for tuples and dicts: of those it drops the ones that refer to nothing."""
    kinds = (type(thing) for thing in gc.get_objects())
    return (f"{kind.__module__}.{kind.__qualname__}" for kind in kinds if kind not in {tuple, dict})


def most(left: Counter[str]) -> int:
    """Of any type. One each of the clients or requests would be `CLIENTS`."""
    return max(left.values(), default=0)


GREETING = masked(TEXT, b"0" * 1000)
LAST_WORDS = {
    "with a close frame": masked(CLOSE, b"\x03\xe8"),
    "without one": b"",
    "inside a header": GREETING[:3],
    "inside a payload": GREETING[:500],
    "inside a ping": masked(PING, b"0" * 125)[:100],
    "between two fragments": bytes([TEXT]) + GREETING[1:],
    "with a binary message": masked(BINARY, b"0"),
    "with a reserved opcode": masked(3, b"0"),
    "with text that is not UTF-8": masked(TEXT, b"\xff"),
}


async def visit(house: RunningDaemon, last_words: bytes) -> None:
    client = await house.connect({})
    assert await client.text() is not None
    if last_words:
        await client.stream.send_all(last_words)
    await client.stream.send_eof()
    while isinstance(await client.text(), bytes):
        pass
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


@pytest.mark.parametrize("last_words", LAST_WORDS.values(), ids=LAST_WORDS)
async def test_clients_that_come_and_go_leave_no_cycles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: bytes
) -> None:
    with trio.fail_after(60):
        async with whole_daemon(tmp_path, monkeypatch) as house:
            await visit(house, last_words)
            with without_collector() as left:
                for _ in range(CLIENTS):
                    await visit(house, last_words)
    assert most(left) < CLIENTS / 2, left.most_common(10)


async def test_requests_leave_no_cycles_whether_they_are_refused_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(60):
        async with whole_daemon(tmp_path, monkeypatch) as house:
            answers = [await request(house, line, body) for line, body in REQUESTS.items()]
            assert [int(answer.split()[1]) for answer in answers] == [201, 200, 404, 400, 404, 404, 405]
            with without_collector() as left:
                for _ in range(CLIENTS):
                    for line, body in REQUESTS.items():
                        await request(house, line, body)
    assert most(left) < CLIENTS / 2, left.most_common(10)


async def test_a_write_that_the_cluster_refuses_leaves_no_cycle(autojump_clock: MockClock) -> None:
    async with simulated_rest() as rest:
        with without_collector() as left:
            for _ in range(CLIENTS):
                assert (await rest.ask_json("DELETE", "/api/cluster/custom-metrics?name=unknown"))[0] == 404
    assert not {name for name in left if name.startswith("heliosd.errors.")}, left.most_common(10)


async def test_a_member_of_etcd_that_answers_no_more_leaves_no_cycles(autojump_clock: MockClock) -> None:
    member = AnsweringMember({STATUS: FULL}, {})
    await member.reader.read(A)
    member.held_up = True

    async def poll() -> None:
        with suppress(EtcdUnavailable):
            await member.reader.read(A)

    await poll()
    with without_collector() as left:
        for _ in range(CLIENTS):
            await poll()
    assert not [name for name in left if name.startswith("heliosd")], left.most_common(10)


async def test_endpoints_of_etcd_that_nobody_serves_leave_no_more_than_each_attempt_to_connect() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        url = f"http://127.0.0.1:{port}"

        async def connect() -> None:
            with suppress(OSError):
                await trio.open_tcp_stream("127.0.0.1", port)

        async with EtcdClient(EtcdConfig(endpoints=(url,)), identity=ClusterIdentity("c")) as client:

            async def poll() -> None:
                with suppress(EtcdError):
                    await client.status(url)

            async def read() -> None:
                with suppress(EtcdError):
                    await client.range(b"heliosd/")

            left: dict[str, Counter[str]] = {}
            for ask in (connect, poll, read):
                await ask()
                with without_collector() as left[ask.__name__]:
                    for _ in range(CLIENTS):
                        await ask()
    for what in ("poll", "read"):
        assert not [name for name in left[what] if name.startswith("heliosd")]
        assert left[what]["builtins.frame"] <= left["connect"]["builtins.frame"] + CLIENTS / 2
