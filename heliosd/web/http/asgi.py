"""One request served by the ASGI app (Quart-Trio): its body in, its response out, framed by RFC 9112.

What holds for every connection:

1. A response is sent in pieces, each with its own deadline. A peer that takes no piece in time is cut; a slow
   reader gets all of it.
2. The app gets the body of its own request and no byte more. Bytes behind it wait for the next request.
3. A body that is due has a deadline.
4. The end of what a client sends is not the end of the client: the app sees a disconnect only when the connection
   is broken. On an event stream, which has no end, comments probe whether such a client is still there.
5. A connection goes on only if the request's body was read to its end and the response is whole.
6. An exception of the app ends its own request only: 500, or a cut connection once the response has begun.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import unquote

import structlog
import trio
from msgspec import Struct

from heliosd.websocket.plain import CONNECTION_LOST
from heliosd.websocket.tls import ClientStream

from .early_response import linger, refuse
from .listeners import Address
from .request_body import ChunkedBody, SizedBody
from .request_head import BadHead, RequestHead

PIECE_BYTES = 64 * 1024
BODY_PIECE_BYTES = 16 * 1024
MAX_AHEAD_BYTES = 64 * 1024
"""So much of the next requests is read while one is served."""
FIRST_PROBE_SECONDS, PROBE_SECONDS = 0.1, 5.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_COMMENT = b":\n\n"
_STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}".encode() for each in HTTPStatus}

Message: TypeAlias = dict[str, Any]
App: TypeAlias = Callable[..., Awaitable[None]]
"""An ASGI 3 application."""

log = structlog.get_logger("heliosd.web")


class Deadlines(Struct, frozen=True, kw_only=True):
    """How long the peer of a request may take, in seconds."""

    piece_seconds: float = 10.0
    """To take 64 KiB of a response."""
    body_seconds: float = 30.0
    """To send the whole body, from the head on."""


async def serve_request(
    app: App, deadlines: Deadlines, head: RequestHead, received: bytes, stream: ClientStream, peer: Address
) -> bytes | None:
    """Serves one request, of which `received` came behind the head. Returns what came behind its body if the
    connection may go on, None if it is over. An error of the app is logged, not raised."""
    exchange = _Exchange(head, stream, deadlines)
    refusal = BadHead(500, "Internal server error")
    try:
        exchange.take(received)
        await app(_scope(head, peer), exchange.receive, exchange.send)
    except* CONNECTION_LOST:
        exchange.gone = True
    except* BadHead as malformed:
        refusal = _first(malformed)
    except* Exception:
        log.exception("request failed")
    if exchange.gone:
        return None
    if not exchange.started.is_set():
        await refuse(stream, refusal.status, refusal.reason, body=head.method != "HEAD")
    elif exchange.whole and exchange.keep_alive:
        return bytes(exchange.ahead)
    else:
        await linger(stream)
    return None


def _scope(head: RequestHead, peer: Address) -> Message:
    path, _, query = head.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": head.version,
        "method": head.method,
        "scheme": head.scheme,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": head.headers,
        "client": peer,
        "extensions": {},
    }


def _first(group: BaseExceptionGroup[BadHead]) -> BadHead:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def status_line_and_date(status: int) -> bytes:
    """The beginning of a response, without the line end behind it."""
    return _status_line_and_date(status, int(time.time()))


@lru_cache(16)
def _status_line_and_date(status: int, second: int) -> bytes:
    return b"%b\r\ndate: %b" % (_STATUS_LINES[status], formatdate(second, usegmt=True).encode("ascii"))


async def write_pieces(stream: ClientStream, data: bytes, piece_seconds: float) -> None:
    """Sends `data`; each piece of it has to be taken in time.

    Raises `trio.BrokenResourceError` when a piece is not, after it has cut the connection, and as `send_all` does.
    """
    with memoryview(data) as view:
        for start in range(0, len(view), PIECE_BYTES):
            with trio.move_on_after(piece_seconds) as limit:
                await stream.send_all(view[start : start + PIECE_BYTES])
            if limit.cancelled_caught:
                stream.abort()
                raise trio.BrokenResourceError("the peer does not read")


class _Exchange:
    """One request and its response, as ASGI's `receive` and `send`."""

    def __init__(self, head: RequestHead, stream: ClientStream, deadlines: Deadlines) -> None:
        self.started = trio.Event()
        """The response has begun."""
        self.whole = self.gone = False
        self.keep_alive = head.keep_alive
        self.ahead = bytearray()
        """What came behind the body."""
        self._head = head
        self._stream = stream
        self._deadlines = deadlines
        self._body_deadline = trio.current_time() + deadlines.body_seconds
        self._body = ChunkedBody() if head.body_bytes is None else SizedBody(head.body_bytes)
        self._content = b""
        """Of the body, for the app."""
        self._awaits_continue = head.tokens(b"expect") == {b"100-continue"}
        self._body_delivered = self._ended = False
        self._sending = trio.Lock()
        self._response_head = b""
        self._due: int | None = None
        """Bytes of the response that its Content-Length says are due."""
        self._bodiless = self._chunked = self._is_event_stream = False
        self._in_event = False
        """What was written last of an event stream is not the end of an event."""

    async def receive(self) -> Message:
        if self._body_delivered:
            await self._disconnected()
            self.gone = True
            return {"type": "http.disconnect"}
        if not self._content and not self._body.done:
            self.take(await self._body_bytes())
        content, self._content = self._content, b""
        self._body_delivered = self._body.done
        return {"type": "http.request", "body": content, "more_body": not self._body.done}

    def take(self, data: bytes) -> None:
        """Bytes that came behind the head. Raises BadHead for malformed chunks."""
        self._content = self._body.feed(data)
        self.ahead += self._body.rest

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
            if self._is_event_stream:
                await self._write(b"")  # its head does not wait for its first event
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._due is not None:
            body = b"" if self._bodiless else body
            self._due -= len(body)
            if self._due < 0:
                raise ValueError("the response is longer than its Content-Length")
        elif self._chunked:
            body = _chunk(body) if more else _chunk(body) + b"0\r\n\r\n"
        if body:
            self._in_event = not body.endswith((b"\n\n", b"\n\n\r\n"))
        if body or self._response_head:
            await self._write(body)
        self.whole = not more and not self._due

    async def _body_bytes(self) -> bytes:
        if self._awaits_continue and not self.started.is_set():
            self._stream.write_now(_CONTINUE)
        self._awaits_continue = False
        data = b""
        with trio.move_on_at(self._body_deadline) as limit:
            data = await self._stream.receive_some(BODY_PIECE_BYTES)
        if limit.cancelled_caught:
            self._stream.abort()
        if not data:
            raise trio.BrokenResourceError("the body did not come")
        return data

    async def _disconnected(self) -> None:
        """Returns once the connection is broken; reads ahead meanwhile."""
        with suppress(*CONNECTION_LOST):
            while len(self.ahead) < MAX_AHEAD_BYTES and not self._ended:
                data = await self._stream.receive_some(BODY_PIECE_BYTES)
                self.ahead += data
                self._ended = not data
            await self.started.wait()
            pause = FIRST_PROBE_SECONDS
            while self._ended and self._is_event_stream:
                if not self._sending.locked() and not self._in_event:
                    await self._write(_chunk(_COMMENT) if self._chunked else _COMMENT)
                await trio.sleep(pause)
                pause = PROBE_SECONDS
            await trio.sleep_forever()

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        lines = [status_line_and_date(status)]
        for name, value in headers:
            lines.append(name + b": " + value)
            match name.lower():
                case b"content-length":
                    self._due = int(value)
                case b"content-type":
                    self._is_event_stream = value.startswith(b"text/event-stream")
        self._bodiless = self._head.method == "HEAD" or status in {204, 304}
        if self._bodiless:
            self._due = 0
        elif self._due is None and self._head.version == "1.1":
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        # Without a length the end of the connection is that of the response.
        framed = self._chunked or self._due is not None
        self.keep_alive = self.keep_alive and framed and self._body.done and not self._ended
        if not self.keep_alive:
            lines.append(b"connection: close")
        self._response_head = b"\r\n".join((*lines, b"", b""))
        if not self._response_head.count(b"\n") == self._response_head.count(b"\r") == len(lines) + 2:
            raise ValueError("a header of the response holds a line end")
        self.started.set()

    async def _write(self, body: bytes) -> None:
        async with self._sending:
            data, self._response_head = self._response_head + body, b""
            await write_pieces(self._stream, data, self._deadlines.piece_seconds)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
