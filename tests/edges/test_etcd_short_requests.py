"""Answers to short requests, in each form of HTTP/1.1, however they are cut into packets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from heliosd.cluster.etcd.client import short_requests
from heliosd.cluster.etcd.client.answers import ArrivingAnswer
from heliosd.cluster.etcd.client.no_answer import HttpFault
from heliosd.cluster.etcd.client.progress import RequestProgress
from heliosd.cluster.etcd.client.short_requests import ShortRequests
from tests.support.deadlines import SECONDS

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
INFORMED = b"HTTP/1.1 103 Early Hints\r\n\r\n" + PLAIN
CLOSING = PLAIN.replace(b"Content-Type: application/json", b"Connection: close")
OLD = b"HTTP/1.0 200 OK\r\n\r\nhello"


class Server:
    """Answers each request with the next of these, in its parts; `requests` are those that came."""

    def __init__(self, answers: Sequence[Sequence[bytes]]) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.ends = False
        """After one answer."""
        self.last_answer = 0
        """The number of the answer after which it ends; 0: none."""
        self.answered = 0
        self.closed = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            await self._serve(stream)
        finally:
            self.closed += 1

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async for request in stream:
            self.requests.append(bytes(request))
            if b"\r\n\r\n" not in request:
                continue
            parts = self._answers.pop(0)
            with suppress(trio.BrokenResourceError):  # a client may leave in the middle
                for part in parts:
                    await stream.send_all(part)
                    await trio.sleep(0.001)
            self.answered += 1
            if self.ends or self.answered == self.last_answer:
                return


async def _default_context() -> ssl.SSLContext:
    return ssl.create_default_context()


@asynccontextmanager
async def asking(*answers: Sequence[bytes]) -> AsyncIterator[tuple[Server, ShortRequests, str]]:
    server, requests = Server(answers), ShortRequests(_default_context)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        try:
            with trio.fail_after(SECONDS):
                yield server, requests, f"http://127.0.0.1:{port}"
        finally:
            requests.close()
            nursery.cancel_scope.cancel()


async def ask(requests: ShortRequests, url: str, body: bytes | None = b"{}") -> tuple[int, bytes]:
    return await requests.exchange(url, "/v3/x", body, [("A", "b")], RequestProgress(), 100)


async def rest(arriving: ArrivingAnswer) -> bytes:
    parts = []
    while part := await arriving.part():
        parts.append(part)
    return b"".join(parts)


async def whole(requests: ShortRequests, url: str) -> bytes:
    async with requests.arriving(url, "/v3/x", b"{}", [], RequestProgress()) as arriving:
        return await rest(arriving)


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED, INFORMED, CLOSING, OLD])
async def test_an_answer_is_the_same_in_one_packet_and_in_many(answer: bytes) -> None:
    cuts = [[answer], *([answer[:at], answer[at:]] for at in range(1, len(answer), 7))]
    async with asking(*cuts) as (server, requests, url):
        server.ends = answer in (CLOSING, OLD)
        for _ in cuts:
            assert await ask(requests, url) == (200, b"hello")
        host = url.removeprefix("http://")
        assert set(server.requests) == {
            f"POST /v3/x HTTP/1.1\r\nHost: {host}\r\nA: b\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        }
        kept = answer not in (CLOSING, OLD)
        assert server.connections == (1 if kept else len(cuts))


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED, INFORMED, CLOSING, OLD])
async def test_an_answer_that_is_read_as_it_arrives_is_the_same(answer: bytes) -> None:
    cuts = [[answer], *([answer[:at], answer[at:]] for at in range(1, len(answer), 7))]
    async with asking(*cuts) as (server, requests, url):
        server.ends = answer in (CLOSING, OLD)
        for _ in cuts:
            async with requests.arriving(url, "/v3/x", b"{}", [], RequestProgress()) as arriving:
                assert (arriving.status, await rest(arriving)) == (200, b"hello")
                assert await arriving.part() == b"", "it is over"
        assert server.connections == len(cuts)


async def test_a_part_is_read_as_soon_as_it_is_there() -> None:
    async with (
        asking([CHUNKED[:55]]) as (_, requests, url),
        requests.arriving(url, "/v3/x", b"{}", [], RequestProgress()) as arriving,
    ):
        assert await arriving.part() == b"hel"
        with trio.move_on_after(0.05) as waited:
            await arriving.part()
        assert waited.cancelled_caught, "the rest has not come"


@pytest.mark.parametrize("answer", [CHUNKED[:58], PLAIN[:-2], CHUNKED.replace(b"2\r\nlo", b"x\r\nlo"), b""])
async def test_an_arriving_answer_that_breaks_off_is_a_fault(answer: bytes) -> None:
    async with asking([answer]) as (server, requests, url):
        server.ends = True
        with pytest.raises(HttpFault):
            await whole(requests, url)


async def test_a_field_that_would_end_its_line_is_not_sent() -> None:
    async with asking() as (server, requests, url):
        with pytest.raises(HttpFault):
            await requests.exchange(url, "/v3/x", b"{}", [("A", "b\r\nC: d")], RequestProgress(), 100)
        assert server.requests == []


async def test_a_get_has_no_body_and_a_refusal_is_an_answer() -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"
    async with asking([refusal]) as (server, requests, url):
        assert await ask(requests, url, None) == (503, b"{}")
        host = url.removeprefix("http://")
        assert server.requests == [f"GET /v3/x HTTP/1.1\r\nHost: {host}\r\nA: b\r\n\r\n".encode()]


async def test_a_connection_with_more_than_an_answer_is_not_used_again() -> None:
    async with asking([PLAIN + b"more"], [CHUNKED + b"more"], [PLAIN]) as (server, requests, url):
        for _ in range(3):
            assert await ask(requests, url) == (200, b"hello")
        assert server.connections == 3


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN.replace(b": 5", b": 101"),
        CHUNKED.replace(b"3\r\nhel", b"65\r\n" + b"h" * 101),
        PLAIN.replace(b": 5", b": 5\r\nContent-Length: 6"),
        PLAIN.replace(b": 5", b": -5"),
        PLAIN.replace(b"200", b"20"),
        b"SSH-2.0-x\r\n\r\n",
    ],
)
async def test_an_answer_that_is_too_long_or_no_http_is_refused(answer: bytes) -> None:
    async with asking([answer], [PLAIN]) as (server, requests, url):
        with pytest.raises(HttpFault):
            await ask(requests, url)
        assert await ask(requests, url) == (200, b"hello")
        assert server.connections == 2


@pytest.mark.parametrize("at", [1, 20, len(PLAIN) - 1])
async def test_an_answer_that_is_cut_off_is_none(at: int) -> None:
    async with asking([PLAIN[:at]]) as (server, requests, url):
        server.ends = True
        with pytest.raises(HttpFault):
            await ask(requests, url)


async def same(requests: ShortRequests, url: str, last: bytes = b"hello") -> bool:
    return await requests.answers_the_same(url, "/v3/x", b"{}", [("A", "b")], last)


REFUSED = PLAIN.replace(b"200 OK", b"503 No")
OTHER = PLAIN.replace(b"hello", b"hellO")
LONGER = PLAIN.replace(b"5\r\n\r\nhello", b"6\r\n\r\nhello!")
CUT = [PLAIN[:-1], b"HTTP/2 what"]


async def test_the_same_answer_is_known_over_the_open_connection_however_it_comes() -> None:
    async with asking([PLAIN], [PLAIN], [CHUNKED], [PLAIN[:40], PLAIN[40:]]) as (server, requests, url):
        assert not await same(requests, url)  # no connection is open
        await ask(requests, url)
        for _ in range(3):
            assert await same(requests, url)
        assert server.connections == 1
        assert len(set(server.requests)) == 1


@pytest.mark.parametrize("other", [REFUSED, OTHER, LONGER, *CUT])
async def test_another_answer_or_none_is_not_the_same_and_the_next_request_is_answered(other: bytes) -> None:
    async with asking([PLAIN], [other], [PLAIN]) as (server, requests, url):
        server.last_answer = 2 if other in CUT else 0
        await ask(requests, url)
        assert not await same(requests, url)
        assert server.connections == 1
        assert await ask(requests, url) == (200, b"hello")


async def test_a_connection_whose_same_answer_is_not_waited_for_is_not_used_again() -> None:
    async with asking([PLAIN], [PLAIN[:40]], [PLAIN]) as (server, requests, url):
        await ask(requests, url)
        with trio.move_on_after(0.05) as waited:
            await same(requests, url)
        assert waited.cancelled_caught
        assert await ask(requests, url) == (200, b"hello")
        assert server.connections == 2


async def test_a_field_that_would_end_a_line_is_not_sent_and_is_no_same_answer() -> None:
    async with asking([PLAIN]) as (_, requests, url):
        assert await ask(requests, url) == (200, b"hello")
        assert not await requests.answers_the_same(url, "/v3/x", b"{}", [("A", "b\r\nC: d")], b"hello")


async def test_a_connection_to_an_endpoint_that_is_asked_no_more_is_closed_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(short_requests, "IDLE_SECONDS", 0.0)
    async with asking([PLAIN]) as (server, requests, url), asking(*[[PLAIN]] * 100) as (_, _, another):
        assert (await ask(requests, url))[0] == 200
        while not server.closed:
            assert (await ask(requests, another))[0] == 200
