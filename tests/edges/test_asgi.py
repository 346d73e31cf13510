"""Requests served by an ASGI app over real connections: each rule of `asgi.py`, and what follows from them."""

from __future__ import annotations

import fcntl
import logging
import struct
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import h11
import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from quart import Response, request
from quart_trio import QuartTrio

from heliosd.web.http import front
from heliosd.web.http.asgi import Deadlines, serve_request
from heliosd.web.http.listeners import Address
from heliosd.web.http.request_body import ChunkedBody
from heliosd.web.http.request_head import MAX_BODY_BYTES, BadHead, RequestHead
from heliosd.websocket.tls import ClientStream
from tests.support.deadlines import SECONDS
from tests.support.front_server import (
    GET,
    Front,
    becomes,
    no_client,
    open_front,
    read_all,
    reset,
    tls_contexts,
    upgrade,
)

LIMIT_SECONDS = 2 * SECONDS
DEFAULT = Deadlines()
SHORT = Deadlines(piece_seconds=0.3, body_seconds=0.3)
FOR_EVER_SECONDS = 10_000.0
PATIENT = Deadlines(piece_seconds=FOR_EVER_SECONDS, body_seconds=FOR_EVER_SECONDS)
BIG_BYTES = 30_000_000
POST = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def get(path: bytes) -> bytes:
    return GET.replace(b"/ ", path + b" ", 1)


@dataclass
class Seen:
    """What the app has seen."""

    requests: int = 0
    started: int = 0
    left: int = 0


def make_app(seen: Seen) -> QuartTrio:
    app = QuartTrio(__name__)

    @app.before_request
    async def count() -> None:
        seen.requests += 1

    @app.route("/", methods=["GET", "POST"])
    async def index() -> str:
        return f"{request.scheme} {request.remote_addr}"

    @app.post("/echo")
    async def echo() -> bytes:
        return cast(bytes, await request.get_data())

    @app.get("/slow")
    async def slow() -> str:
        seen.started += 1
        await trio.sleep(0.05)  # time to read what follows or the end, which the server reports to nobody
        return "slow"

    @app.get("/big")
    async def big() -> Response:
        async def generate() -> AsyncIterator[bytes]:
            seen.started += 1
            try:
                yield bytes(BIG_BYTES)
            finally:
                seen.left += 1

        return Response(generate())

    @app.get("/pieces")
    async def pieces() -> Response:
        async def generate() -> AsyncIterator[bytes]:
            for piece in (b"one ", b"", b"two ", b"three"):
                yield piece

        return Response(generate())

    @app.get("/events")
    async def events() -> Response:
        async def generate() -> AsyncIterator[bytes]:
            seen.started += 1
            try:
                yield b"data: hello\n\n"
                await trio.sleep_forever()
            finally:
                seen.left += 1

        response = Response(generate(), content_type="text/event-stream")
        response.timeout = None
        return response

    @app.post("/wait")
    async def wait() -> str:
        seen.started += 1
        try:
            await request.get_data()
        finally:
            seen.left += 1
        return "all there"

    @app.get("/nothing")
    async def nothing() -> Response:
        response = Response(b"", status=204)
        del response.headers["Content-Type"], response.headers["Content-Length"]
        return response

    @app.get("/bug")
    async def bug() -> str:
        raise ZeroDivisionError

    @app.get("/late-bug")
    async def late_bug() -> Response:
        async def generate() -> AsyncIterator[bytes]:
            yield b"some"
            raise ZeroDivisionError

        return Response(generate())

    return app


@dataclass
class ServedApp:
    front: Front
    seen: Seen
    running: int = 0
    """Requests that are being served."""


@asynccontextmanager
async def open_app(*, deadlines: Deadlines = DEFAULT, over_tls: bool = False) -> AsyncIterator[ServedApp]:
    seen = Seen()
    app = make_app(seen)
    served: ServedApp | None = None

    async def rest(head: RequestHead, received: bytes, stream: ClientStream, peer: Address) -> bytes | None:
        assert served is not None
        served.running += 1
        try:
            return await serve_request(app, deadlines, head, received, stream, peer)
        finally:
            served.running -= 1

    async with open_front(rest=rest, live=no_client, tls=tls_contexts()[0] if over_tls else None) as front:
        served = ServedApp(front, seen)
        yield served


@pytest.fixture(autouse=True)
def no_error_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Trouble of one connection is not logged; a test that provokes an error clears the log."""
    with structlog.testing.capture_logs() as ours:
        yield
    theirs = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert (theirs, [line for line in ours if line["log_level"] == "error"]) == ([], [])


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def unread(stream: trio.SocketStream) -> int:
    """Bytes that the kernel holds for this end."""
    return int(struct.unpack("i", fcntl.ioctl(stream.socket.fileno(), termios.FIONREAD, bytes(4)))[0])


class Reader:
    """A client that reads one response after another from a connection, by h11."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.h11 = h11.Connection(h11.CLIENT)

    async def ask(self, method: bytes = b"GET", target: bytes = b"/", body: bytes = b"") -> tuple[int, bytes]:
        headers = [(b"host", b"a"), (b"content-length", b"%d" % len(body))]
        sent = self.h11.send(h11.Request(method=method, target=target, headers=headers))
        sent = (sent or b"") + (self.h11.send(h11.Data(data=body)) or b"")
        await self.stream.send_all(sent + (self.h11.send(h11.EndOfMessage()) or b""))
        status, read = 0, b""
        while True:
            event = self.h11.next_event()
            match event:
                case h11.NEED_DATA:
                    self.h11.receive_data(bytes(await self.stream.receive_some(65536)))
                case h11.Response():
                    status = event.status_code
                case h11.Data():
                    read += event.data
                case h11.EndOfMessage():
                    if self.h11.our_state is h11.DONE:
                        self.h11.start_next_cycle()
                    return status, read
                case _:
                    raise AssertionError(event)


# -- 1: responses go out in pieces, each with a deadline of its own ---------------------------------


@pytest.mark.parametrize("over_tls", [False, True])
async def test_a_peer_that_never_reads_ends_its_request_without_a_traceback(over_tls: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app(deadlines=SHORT, over_tls=over_tls) as served:
            stream: trio.abc.Stream = await served.front.connect(receive_buffer=4096)
            if over_tls:
                stream = trio.SSLStream(stream, tls_contexts()[1], server_hostname="127.0.0.1")
            await stream.send_all(get(b"/big"))
            await becomes(lambda: served.seen.left == 1 and served.running == 0)
            await trio.aclose_forcefully(stream)


async def test_a_reader_that_takes_longer_than_any_one_deadline_gets_a_whole_response() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_app(deadlines=SHORT) as served,
            await served.front.connect(receive_buffer=65536) as stream,
        ):
            await stream.send_all(CLOSE % b"/big")
            size = 0
            began = trio.current_time()
            while data := await stream.receive_some(1_000_000):
                size += len(data)
                if trio.current_time() - began < 3 * SHORT.piece_seconds:
                    await trio.sleep(0.02)  # a slow reader, which is what is tested
    assert size > BIG_BYTES


async def test_cancelling_ends_a_send_that_is_stuck() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app(deadlines=PATIENT) as served:
            stream = await served.front.connect(receive_buffer=4096)
            await stream.send_all(get(b"/big"))
            await becomes(lambda: served.seen.started == 1 and unread(stream) > 0)
        reset(stream)


# -- 2: the body and nothing else; requests follow one another --------------------------------------


@pytest.mark.parametrize("over_tls", [False, True])
async def test_requests_follow_one_another_on_a_connection(over_tls: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app(over_tls=over_tls) as served:
            stream: trio.abc.Stream = await served.front.connect()
            if over_tls:
                stream = trio.SSLStream(stream, tls_contexts()[1], server_hostname="127.0.0.1")
            reader = Reader(stream)
            index = b"https 127.0.0.1" if over_tls else b"http 127.0.0.1"
            for number in range(50):
                assert await reader.ask() == (200, index)
                assert await reader.ask(b"POST", b"/echo", b"x" * number * 1000) == (
                    200,
                    b"x" * number * 1000,
                )
                assert await reader.ask(b"GET", b"/pieces") == (200, b"one two three")
                assert await reader.ask(b"HEAD") == (200, b"")
                assert await reader.ask(b"GET", b"/nothing") == (204, b"")
                assert (await reader.ask(b"GET", b"/nowhere"))[0] == 404
            assert served.seen.requests == 300
            await trio.aclose_forcefully(stream)


async def test_pipelined_requests_are_answered_in_order() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            sent = get(b"/slow") + POST % (b"/echo", 5) + b"hello" + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"
            answer = await served.front.ask(sent + b"\r\n" + CLOSE % b"/pieces")
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 4
    places = [answer.index(text) for text in (b"slow", b"hello", b"abc", b"three")]
    assert places == sorted(places)


async def test_a_malformed_request_behind_another_is_refused_and_ends_the_connection() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            answer = await served.front.ask(GET + b"GET / HTTP/1.1\nHost: a\n\n" + GET)
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in answer


@pytest.mark.parametrize("sent", [GET.replace(b"1.1", b"1.0"), CLOSE % b"/"])
async def test_a_client_that_wants_no_more_gets_close(sent: bytes) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            await stream.send_all(sent)
            answer = await read_all(stream)
    assert b"\r\nconnection: close\r\n" in answer
    assert b"\r\nserver:" not in answer
    assert answer.endswith(b"\r\n\r\nhttp 127.0.0.1")


async def test_in_http_1_0_a_response_of_unknown_length_ends_with_the_connection() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            answer = await served.front.ask(b"GET /pieces HTTP/1.0\r\n\r\n")
    assert b"chunked" not in answer
    assert answer.endswith(b"\r\n\r\none two three")


async def test_a_connection_serves_so_many_requests_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "MAX_REQUESTS", 3)
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            answer = await served.front.ask(GET * 5)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert answer.count(b"connection: close") == 1


async def test_an_idle_connection_is_closed_in_time_and_at_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            await Reader(stream).ask()
            served.front.stop.set()
            assert await read_all(stream) == b""
        monkeypatch.setattr(front, "IDLE_SECONDS", 0.2)
        async with open_app() as served, await served.front.connect() as stream:
            await Reader(stream).ask()
            assert await read_all(stream) == b""


async def test_an_idle_connection_whose_next_head_never_ends_is_closed_in_time() -> None:
    seen = Seen()
    app = make_app(seen)

    async def rest(head: RequestHead, received: bytes, stream: ClientStream, peer: Address) -> bytes | None:
        return await serve_request(app, Deadlines(), head, received, stream, peer)

    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(rest=rest, head_seconds=0.3) as server, await server.connect() as stream:
            await Reader(stream).ask()
            await stream.send_all(b"GET / HT")
            assert await read_all(stream) == b""


# -- 3: bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"a"])
@pytest.mark.parametrize("head", [POST % (b"/wait", 1000), CHUNKED.replace(b"echo", b"wait") + b"3e8\r\n"])
async def test_a_stalled_body_ends_its_request_and_connection(head: bytes, sent: bytes) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app(deadlines=SHORT) as served, await served.front.connect() as stream:
            await stream.send_all(head + sent)
            with pytest.raises(trio.BrokenResourceError):
                await read_all(stream)
            await becomes(lambda: served.seen.left == 1 and served.running == 0)


async def test_a_body_in_many_pieces_is_served() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            await stream.send_all((POST % (b"/echo", 300_000)).replace(b"Host", b"Connection: close\r\nHost"))
            for _ in range(300):
                await stream.send_all(b"x" * 1000)
            assert (await read_all(stream)).endswith(b"\r\n\r\n" + b"x" * 300_000)


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            lines = b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
            await stream.send_all((POST % (b"/echo", 5))[:-2] + lines)
            assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(b"hello")
            assert (await read_all(stream)).endswith(b"\r\n\r\nhello")


async def test_a_client_that_waits_for_100_continue_gets_it_once_however_long_its_body_is() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            lines = b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
            await stream.send_all((POST % (b"/echo", 100_000))[:-2] + lines)
            assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(b"x" * 100_000)
            assert (await read_all(stream)).startswith(b"HTTP/1.1 200 ")


async def test_a_response_before_the_end_of_the_body_closes_the_connection() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            answer = await served.front.ask(POST % (b"/nowhere", 1_000_000) + b"x" * 10)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nconnection: close\r\n" in answer


async def test_chunked_bodies_reach_the_app_decoded() -> None:
    body = b"4;x=y\r\nWiki\r\n0005\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\nX-Trailer: 1\r\n\r\n"
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            for byte in CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + body:
                await stream.send_all(bytes([byte]))
            assert (await read_all(stream)).endswith(b"\r\n\r\nWikipedia in\r\n\r\nchunks.")


MALFORMED_CHUNKS = [
    b"g\r\n",
    b"\r\n",
    b"-1\r\n",
    b"+1\r\na\r\n",
    b"0x1\r\na\r\n",
    b" 1\r\na\r\n",
    b"1 \r\na\r\n",
    b"1\na\n",
    b"1\ra",
    b"1\r\nab\r\n",
    b"1\r\na\n0\r\n\r\n",
    b"1\r\na0\r\n\r\n",
    b"123456789\r\n",
    b"1;" + b"x" * 300 + b"\r\n",
    b"1;\x00\r\na\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\n folded: x\r\n\r\n",
    b"0\r\nX: 1\n\r\n",
]


@pytest.mark.parametrize("body", MALFORMED_CHUNKS)
async def test_malformed_chunks_are_400_and_end_the_connection(body: bytes) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            answer = await served.front.ask(CHUNKED + body + GET)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_chunks_over_the_limit_are_413_before_they_come() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            answer = await served.front.ask(CHUNKED + b"1\r\na\r\n%x\r\n" % MAX_BODY_BYTES)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_chunks_of_exactly_the_limit_are_taken_but_not_any_number_of_them() -> None:
    body = ChunkedBody()
    assert (
        len(body.feed(b"%x\r\n" % MAX_BODY_BYTES + bytes(MAX_BODY_BYTES) + b"\r\n0\r\n\r\n"))
        == MAX_BODY_BYTES
    )
    assert body.done
    with pytest.raises(BadHead, match="400"):
        ChunkedBody().feed(b"1;%b\r\na\r\n" % (b"x" * 250) * (MAX_BODY_BYTES // 250))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.binary(max_size=20), st.data())
def test_it_does_not_matter_in_which_pieces_chunks_come(
    chunks: list[bytes], behind: bytes, data: st.DataObject
) -> None:
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    sent = coded + behind
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent)), max_size=10)))
    body, content, fed = ChunkedBody(), b"", 0
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        content += body.feed(sent[start:end])
        fed = end
        if body.done:
            break
    assert (body.done, content) == (True, b"".join(chunks))
    assert body.rest == sent[len(coded) : fed]


@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    body = ChunkedBody()
    try:
        body.feed(data)
    except BadHead as refusal:
        assert refusal.status in {400, 413}  # noqa: PT017


# -- 4: the end of what a client sends is not the end of the client ---------------------------------


@pytest.mark.parametrize("over_tls", [False, True])
@pytest.mark.parametrize("path", [b"/", b"/slow", b"/pieces", b"/nowhere"])
async def test_a_half_closed_client_gets_its_whole_answer(path: bytes, over_tls: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app(over_tls=over_tls) as served:
            for _ in range(25):
                stream: trio.abc.Stream = await served.front.connect()
                if over_tls:
                    stream = trio.SSLStream(
                        stream, tls_contexts()[1], server_hostname="127.0.0.1", https_compatible=True
                    )
                await stream.send_all(get(path))
                under = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
                assert isinstance(under, trio.SocketStream)
                await under.send_eof()
                connection = h11.Connection(h11.CLIENT)
                connection.send(h11.Request(method=b"GET", target=path, headers=[(b"host", b"a")]))
                connection.send(h11.EndOfMessage())
                connection.receive_data(await read_all(stream))
                while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                    assert isinstance(event, h11.Response | h11.Data)
                await trio.aclose_forcefully(stream)


async def test_a_half_closed_client_that_posts_gets_its_answer() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            await stream.send_all(POST % (b"/echo", 5) + b"hello")
            await stream.send_eof()
            assert (await read_all(stream)).endswith(b"\r\n\r\nhello")


async def test_a_half_closed_client_keeps_its_event_stream() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            await stream.send_all(get(b"/events"))
            await stream.send_eof()
            received = b""
            while b"\r\n3\r\n:\n\n\r\n" not in received:  # the probe, a comment
                received += await stream.receive_some()
            assert received.count(b"data: hello") == 1
            assert served.seen.left == 0


async def test_two_hundred_event_streams_leave_no_task_and_no_descriptor() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            await served.front.ask(CLOSE % b"/")
            await becomes(lambda: served.running == 0)
            tasks = trio.lowlevel.current_statistics().tasks_living
            descriptors = open_descriptors()
            streams = [await served.front.connect() for _ in range(200)]
            for number, stream in enumerate(streams):
                await stream.send_all(get(b"/events") * (1 + number % 3))
            await becomes(lambda: served.seen.started == 200)
            for number, stream in enumerate(streams):
                if number % 2:
                    reset(stream)
                else:
                    await stream.aclose()
            await becomes(lambda: served.seen.left == 200)
            await becomes(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
            await becomes(lambda: open_descriptors() <= descriptors)


async def test_the_head_of_an_event_stream_does_not_wait_for_an_event() -> None:
    async def silent(scope: object, receive: object, send: object) -> None:
        assert callable(send)
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await trio.sleep_forever()

    async def rest(head: RequestHead, received: bytes, stream: ClientStream, peer: Address) -> bytes | None:
        return await serve_request(silent, Deadlines(), head, received, stream, peer)

    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(rest=rest) as server, await server.connect() as stream:
            await stream.send_all(GET)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 OK\r\n")


# -- 6: errors --------------------------------------------------------------------------------------


async def test_an_error_of_the_app_is_a_500_and_ends_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            reader = Reader(stream)
            assert (await reader.ask(b"GET", b"/bug"))[0] == 500
            assert (await reader.ask())[0] == 200
    assert [line.levelname for line in caplog.records] == ["ERROR"]
    caplog.clear()


async def test_a_response_that_breaks_off_does_not_look_whole() -> None:
    with structlog.testing.capture_logs() as logged, trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            answer = await served.front.ask(get(b"/late-bug"))
    assert answer.endswith(b"4\r\nsome\r\n")
    assert [line["event"] for line in logged] == ["request failed"]


@pytest.mark.parametrize(
    "headers",
    [[(b"x", b"a\r\nb: c")], [(b"x", b"a\nb")], [(b"x\r\n", b"a")], [(b"content-length", b"3")]],
)
async def test_a_response_that_cannot_be_framed_is_never_sent(headers: list[tuple[bytes, bytes]]) -> None:
    async def wrong(scope: object, receive: object, send: object) -> None:
        assert callable(send)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"four"})

    async def rest(head: RequestHead, received: bytes, stream: ClientStream, peer: Address) -> bytes | None:
        return await serve_request(wrong, Deadlines(), head, received, stream, peer)

    with trio.fail_after(LIMIT_SECONDS), structlog.testing.capture_logs() as logged:
        async with open_front(rest=rest) as server:
            answer = await server.ask(GET)
    assert b" 200 " not in answer
    assert [line["event"] for line in logged] == ["request failed"]


@pytest.mark.parametrize("path", [b"/", b"/ws/clusters", b"/nowhere", b"//ws/cluster", b"/events"])
async def test_no_upgrade_to_websocket_reaches_the_app(path: bytes) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            assert (await served.front.ask(upgrade(path))).startswith(b"HTTP/1.1 404 ")
            assert served.seen.requests == 0
            answer = await served.front.ask(GET + upgrade(path))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"HTTP/1.1 404 " in answer
            assert served.seen.requests == 1


async def test_any_other_upgrade_is_ignored() -> None:
    lines = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            answer = await served.front.ask(GET[:-2] + lines)
    assert answer.startswith(b"HTTP/1.1 200 ")
