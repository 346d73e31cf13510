"""The adapter of Hypercorn: the six things its stream does, each shown to be needed and kept, and what follows."""

from __future__ import annotations

import fcntl
import logging
import struct
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import structlog
import trio
import trio.testing
from hypercorn.utils import LifespanFailureError
from quart import Response, request
from quart_trio import QuartTrio

from heliosd.web.http.hypercorn_adapter import (
    MAX_DISCARDED_BYTES,
    Deadlines,
    HypercornStream,
    hypercorn_parts,
    serve_request,
)
from heliosd.web.http.listeners import Address
from heliosd.web.http.request_head import RequestHead, parse
from heliosd.websocket.tls import ClientStream
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

LIMIT_SECONDS = 60
SHORT = Deadlines(piece_seconds=0.3, body_seconds=0.3, linger_seconds=0.3)
FOR_EVER_SECONDS = 10_000.0
PATIENT = Deadlines(
    piece_seconds=FOR_EVER_SECONDS, body_seconds=FOR_EVER_SECONDS, linger_seconds=FOR_EVER_SECONDS
)
BIG_BYTES = 30_000_000
POST = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def get(path: bytes) -> bytes:
    return GET.replace(b"/ ", path + b" ", 1)


@dataclass
class Seen:
    """What the app has seen."""

    started: int = 0
    left: int = 0
    shut_down: bool = False


def make_app(seen: Seen) -> QuartTrio:
    app = QuartTrio(__name__)

    @app.get("/")
    async def index() -> str:
        return f"{request.scheme} {request.remote_addr}"

    @app.post("/echo")
    async def echo() -> bytes:
        return cast(bytes, await request.get_data())

    @app.post("/deaf")
    async def deaf() -> tuple[str, int]:
        return "I do not read that", 401

    @app.get("/big")
    async def big() -> Response:
        async def generate() -> AsyncIterator[bytes]:
            seen.started += 1
            try:
                yield bytes(BIG_BYTES)
            finally:
                seen.left += 1

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

    @app.get("/bug")
    async def bug() -> str:
        raise ZeroDivisionError

    @app.after_serving
    async def shut_down() -> None:
        seen.shut_down = True

    return app


@dataclass
class ServedApp:
    front: Front
    seen: Seen
    running: int = 0
    """Requests that are being served."""


@asynccontextmanager
async def open_app(*, deadlines: Deadlines | None = None, over_tls: bool = False) -> AsyncIterator[ServedApp]:
    seen = Seen()
    served: ServedApp | None = None
    async with hypercorn_parts(make_app(seen), deadlines) as parts:

        async def rest(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
            assert served is not None
            served.running += 1
            try:
                await serve_request(parts, head, trailing, stream)
            finally:
                served.running -= 1

        async with open_front(
            rest=rest, live=no_client, tls=tls_contexts()[0] if over_tls else None
        ) as front:
            served = ServedApp(front, seen)
            yield served
    assert seen.shut_down


@pytest.fixture(autouse=True)
def no_error_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Trouble of one connection is not logged; a test that provokes an error clears the log."""
    with structlog.testing.capture_logs() as ours:
        yield
    theirs = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert (theirs, [line for line in ours if line["log_level"] == "error"]) == ([], [])


def unread(stream: trio.SocketStream) -> int:
    """Bytes that the kernel holds for this end."""
    return struct.unpack("i", fcntl.ioctl(stream.socket.fileno(), termios.FIONREAD, bytes(4)))[0]  # type: ignore[no-any-return]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@dataclass
class FakeConnection:
    """A client's connection on the mock clock."""

    seconds_a_piece: float = 0.0
    comes: list[bytes] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    socket: object = None

    async def send_all(self, data: memoryview) -> None:
        await trio.sleep(self.seconds_a_piece)
        self.sent.append(len(data))

    async def receive_some(self, max_bytes: int) -> bytes:
        if not self.comes:
            await trio.sleep(FOR_EVER_SECONDS)
            return b""
        await trio.lowlevel.checkpoint()
        return self.comes.pop(0)

    def half_close(self) -> None:
        self.done.append("half-closed")

    def abort(self) -> None:
        self.done.append("aborted")


def adapted_stream(
    connection: FakeConnection,
    request: bytes = GET,
    trailing: bytes = b"",
    scope: trio.CancelScope | None = None,
) -> HypercornStream:
    stream = cast(ClientStream, connection)
    return HypercornStream(stream, parse(request), trailing, Deadlines(), scope or trio.CancelScope())


# 1: sends in pieces, each with a deadline of its own


async def test_an_honest_slow_reader_gets_a_response_longer_than_any_one_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    connection = FakeConnection(seconds_a_piece=9)
    with trio.CancelScope(shield=True):  # as Hypercorn does
        await adapted_stream(connection).send_all(bytes(1_000_000))
    assert connection.sent == [65536] * 15 + [1_000_000 - 15 * 65536]
    assert trio.current_time() == pytest.approx(16 * 9)


async def test_a_peer_that_takes_no_piece_is_cut_also_inside_a_shield(
    autojump_clock: trio.testing.MockClock,
) -> None:
    connection = FakeConnection(seconds_a_piece=FOR_EVER_SECONDS)
    with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
        await adapted_stream(connection).send_all(bytes(100))
    assert trio.current_time() == pytest.approx(10)
    assert connection.done == ["aborted"]


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


async def test_a_slow_reader_gets_all_of_a_big_response() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app(deadlines=SHORT) as served:
            answer = await served.front.ask(get(b"/big"))
    assert len(answer.partition(b"\r\n\r\n")[2]) > BIG_BYTES


# 2: the head and the body, nothing else


async def test_it_delivers_the_head_and_the_body_and_discards_the_rest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    request = POST % (b"/", 10)
    connection = FakeConnection(comes=[b"def", b"ghijGET / HTTP/1.1\r\n", b"more", b""])
    adapted = adapted_stream(connection, request, b"abc")
    read = b""
    while data := await adapted.receive_some(65536):
        read += data
    assert read == request + b"abcdefghij"
    assert connection.comes == []


async def test_a_body_that_came_with_the_head_is_cut_at_its_length(
    autojump_clock: trio.testing.MockClock,
) -> None:
    request = POST % (b"/", 2)
    adapted = adapted_stream(FakeConnection(comes=[b""]), request, b"abcdef")
    assert await adapted.receive_some(65536) == request + b"ab"
    assert await adapted.receive_some(65536) == b""


async def test_a_flood_behind_a_request_counts_as_its_end(autojump_clock: trio.testing.MockClock) -> None:
    connection = FakeConnection(comes=[bytes(65536)] * 100)
    adapted = adapted_stream(connection)
    assert await adapted.receive_some(65536) == GET
    assert await adapted.receive_some(65536) == b""
    assert len(connection.comes) == 100 - MAX_DISCARDED_BYTES // 65536 - 1


async def test_two_hundred_event_streams_leave_no_task_and_no_descriptor() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            await served.front.ask(GET)
            await becomes(lambda: served.running == 0)
            tasks = trio.lowlevel.current_statistics().tasks_living
            descriptors = open_descriptors()
            streams = [await served.front.connect() for _ in range(200)]
            for stream in streams:
                await stream.send_all(get(b"/events"))
            await becomes(lambda: served.seen.started == 200)
            for number, stream in enumerate(streams):
                if number % 2:
                    reset(stream)
                else:
                    await stream.aclose()
            await becomes(lambda: served.seen.left == 200)
            await becomes(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
            await becomes(lambda: open_descriptors() <= descriptors)


# 3: a body that is due


async def test_a_body_that_does_not_come_in_time_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    adapted = adapted_stream(connection := FakeConnection(), POST % (b"/", 5), b"abc")
    await adapted.receive_some(65536)
    with pytest.raises(trio.BrokenResourceError):
        await adapted.receive_some(65536)
    assert trio.current_time() == pytest.approx(30)
    assert connection.done == ["aborted"]


@pytest.mark.parametrize("sent", [b"", b"a"])
async def test_a_stalled_body_ends_its_request_and_connection(sent: bytes) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app(deadlines=SHORT) as served, await served.front.connect() as stream:
            await stream.send_all(POST % (b"/wait", 1000) + sent)
            with pytest.raises(trio.BrokenResourceError):
                await read_all(stream)
            await becomes(lambda: served.seen.left == 1 and served.running == 0)


async def test_a_body_that_takes_its_time_is_served() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            await stream.send_all(POST % (b"/echo", 300_000))
            for _ in range(3):
                await stream.send_all(b"x" * 100_000)
                await trio.sleep(0.05)
            assert (await read_all(stream)).endswith(b"\r\n\r\n" + b"x" * 300_000)


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served, await served.front.connect() as stream:
            await stream.send_all((POST % (b"/echo", 5))[:-2] + b"Expect: 100-continue\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
            await stream.send_all(b"hello")
            assert (await read_all(stream)).endswith(b"\r\n\r\nhello")


# 4: half-closes without a checkpoint


async def test_closing_does_not_depend_on_a_checkpoint(autojump_clock: trio.testing.MockClock) -> None:
    adapted = adapted_stream(connection := FakeConnection())
    with trio.CancelScope() as scope:
        scope.cancel()
        await adapted.send_eof()
        await adapted.aclose()
    assert connection.done == ["half-closed"]
    assert not scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        await adapted.send_all(b"too late")


@pytest.mark.parametrize("over_tls", [False, True])
async def test_a_response_ends_at_once_although_the_client_keeps_its_side_open(over_tls: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        # With a deadline of hours for the peer's side, waiting for it would never end.
        async with open_app(deadlines=PATIENT, over_tls=over_tls) as served:
            transport = await served.front.connect()
            stream: trio.abc.Stream = transport
            if over_tls:
                stream = trio.SSLStream(
                    transport, tls_contexts()[1], server_hostname="127.0.0.1", https_compatible=True
                )
            await stream.send_all(GET)
            answer = await read_all(stream)
            assert b"\r\nconnection: close\r\n" in answer
            assert b"\r\nserver:" not in answer
            await trio.aclose_forcefully(stream)


# 5: once closed, the task has one more second


async def test_a_closed_stream_cancels_its_task_a_second_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scope = trio.CancelScope()
    adapted = adapted_stream(FakeConnection(), scope=scope)
    with scope:
        await adapted.receive_some(65536)
        await trio.sleep(5)
        await adapted.aclose()
        await adapted.receive_some(65536)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(6)


async def test_closing_sets_a_deadline_for_a_send_inside_a_shield(
    autojump_clock: trio.testing.MockClock,
) -> None:
    adapted = adapted_stream(FakeConnection(seconds_a_piece=FOR_EVER_SECONDS))

    async def send() -> None:
        with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
            await adapted.send_all(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(2)
        await adapted.aclose()
    assert trio.current_time() == pytest.approx(3)


@pytest.mark.parametrize(
    "request_bytes", [GET, POST % (b"/deaf", 1_000_000) + b"x" * 1_000_000, POST % (b"/deaf", 10)]
)
async def test_a_client_that_never_closes_is_cut_after_its_response(request_bytes: bytes) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app(deadlines=SHORT) as served, await served.front.connect() as stream:
            await stream.send_all(request_bytes)
            answer = await read_all(stream)
            assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 401 "))
            await becomes(lambda: served.running == 0)


# 6: TLS


async def test_over_tls_the_app_sees_https() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_app(over_tls=True) as served,
            trio.SSLStream(
                await served.front.connect(), tls_contexts()[1], server_hostname="127.0.0.1"
            ) as stream,
        ):
            await stream.send_all(GET)
            assert (await read_all(stream)).endswith(b"\r\n\r\nhttps 127.0.0.1")


# and what follows


async def test_an_ordinary_request_is_answered_in_http_1_1_and_1_0_and_for_head() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            full = await served.front.ask(GET)
            old = await served.front.ask(b"GET / HTTP/1.0\r\n\r\n")
            headers_only = await served.front.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert full.endswith(b"\r\n\r\nhttp 127.0.0.1")
    assert old.endswith(b"\r\n\r\nhttp 127.0.0.1")
    assert headers_only.startswith(b"HTTP/1.1 200 ")
    assert headers_only.endswith(b"\r\n\r\n")
    assert b"content-length: 14\r\n" in headers_only


async def test_a_peer_that_leaves_an_event_stream_ends_it_without_another_event() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            async with await served.front.connect() as stream:
                await stream.send_all(get(b"/events"))
                await becomes(lambda: served.seen.started == 1)
            await becomes(lambda: served.seen.left == 1 and served.running == 0)


async def test_cancelling_reaches_a_send_inside_hypercorns_shield() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app(deadlines=PATIENT) as served:
            stream = await served.front.connect(receive_buffer=4096)
            await stream.send_all(get(b"/big"))
            await becomes(lambda: served.seen.started == 1)
            await becomes(lambda: unread(stream) > 0)
        reset(stream)


async def test_an_error_of_the_app_is_a_500_and_ends_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            assert (await served.front.ask(get(b"/bug"))).startswith(b"HTTP/1.1 500 ")
            assert (await served.front.ask(GET)).startswith(b"HTTP/1.1 200 ")
    assert [line.levelname for line in caplog.records] == ["ERROR"]
    caplog.clear()


@pytest.mark.parametrize("path", [b"/", b"/ws/clusters", b"/nowhere", b"//ws/cluster", b"/events"])
async def test_no_upgrade_reaches_hypercorn(monkeypatch: pytest.MonkeyPatch, path: bytes) -> None:
    reached: list[bytes] = []

    async def counted(stream: HypercornStream, max_bytes: int) -> bytes:
        reached.append(data := await receive_some(stream, max_bytes))
        return data

    receive_some = HypercornStream.receive_some
    monkeypatch.setattr(HypercornStream, "receive_some", counted)
    with trio.fail_after(LIMIT_SECONDS):
        async with open_app() as served:
            assert (await served.front.ask(upgrade(path))).startswith(b"HTTP/1.1 404 ")
            assert reached == []
            assert (await served.front.ask(GET)).startswith(b"HTTP/1.1 200 ")
            assert reached[0] == GET


async def test_an_app_that_cannot_start_stops_the_start(caplog: pytest.LogCaptureFixture) -> None:
    app = QuartTrio(__name__)

    @app.before_serving
    async def fail() -> None:
        raise ZeroDivisionError("no store")

    failure = pytest.RaisesExc(LifespanFailureError, match="no store")
    with trio.fail_after(LIMIT_SECONDS), pytest.RaisesGroup(failure, flatten_subgroups=True):
        async with hypercorn_parts(app):
            raise AssertionError("it started")
    caplog.clear()
