"""Requests with short answers, over connections that are kept: HTTP/1.1 on Trio's streams.

The polls are most of what an idle heliosd does, and over httpx they cost three times as much. An answer of the form
that etcd's have, with a Content-Length, is read here; whatever has another form is read by h11. Streams, of which
there are few, stay with httpx. Errors are raised as httpx raises them, so that `no_answer` reads both.
"""

from __future__ import annotations

import re
import select
import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache
from urllib.parse import urlsplit

import h11
import httpx
import trio

from .no_answer import CONNECT_SECONDS, MAX_CONNECTIONS
from .progress import RequestProgress

IDLE_SECONDS = 60.0
"""A connection that was not used for so long is closed."""
RECEIVE_BYTES = 65536

Fields = tuple[tuple[str, str], ...]

_PLAIN = re.compile(
    rb"HTTP/1\.1 (?P<status>200|[45]\d\d) [ -~]*\r\n"
    rb"(?:(?!(?:Content-Length|Transfer-Encoding|Connection):)[A-Za-z-]+: ?[ -~]*\r\n)*"
    rb"Content-Length: (?P<length>\d{1,9})\r\n"
    rb"(?:(?!(?:Content-Length|Transfer-Encoding|Connection):)[A-Za-z-]+: ?[ -~]*\r\n)*\r\n",
    re.IGNORECASE,
)
"""The head of an answer that keeps the connection open and whose body has this length. RFC 9112, section 6.3."""


class _Connection:
    """One connection to one endpoint. `stream` is `tcp`, or TLS over it."""

    def __init__(self, tcp: trio.SocketStream, stream: trio.abc.Stream) -> None:
        self.tcp = tcp
        self.stream = stream
        self.lasts = False
        """It can be used for another request."""
        self.used_at = trio.current_time()

    def usable(self) -> bool:
        """Neither closed by the other side (or sent something unasked), nor idle for long."""
        if trio.current_time() - self.used_at > IDLE_SECONDS:
            return False
        waiting = select.poll()
        waiting.register(self.tcp.socket.fileno(), select.POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        self.tcp.socket.close()


class HeldConnection:
    """A connection that has had one answer, `body`. `lasts`: the other side keeps it open for another request."""

    def __init__(self, body: bytes, tcp: trio.SocketStream, *, lasts: bool) -> None:
        self.body = body
        self.lasts = lasts
        self._tcp = tcp

    async def closed(self) -> None:
        """Return once the other side has ended it: its process has ended, or is about to."""
        await trio.lowlevel.wait_readable(self._tcp.socket)


class ShortRequests:
    """At most `MAX_CONNECTIONS` at a time. `context` is used for each new TLS connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._kept: dict[str, list[_Connection]] = {}
        self._limit = trio.Semaphore(MAX_CONNECTIONS)

    def close(self) -> None:
        """Close the connections that are kept."""
        for kept in self._kept.values():
            for each in kept:
                each.close()
        self._kept.clear()

    async def exchange(
        self,
        endpoint: str,
        target: str,
        body: bytes | None,
        headers: Iterable[tuple[str, str]],
        progress: RequestProgress,
        max_bytes: int,
    ) -> tuple[int, bytes]:
        """POST if there is a body, else GET. Returns status and body. Raises `httpx.HTTPError`; an answer of more
        than `max_bytes` is `httpx.DecodingError`."""
        with trio.move_on_after(CONNECT_SECONDS) as waited:
            await self._limit.acquire()
        if waited.cancelled_caught:
            raise httpx.PoolTimeout("no connection was free")
        try:
            connection = self._take(endpoint) or await self._connect(endpoint, progress)
            try:
                return await _ask(connection, endpoint, target, body, tuple(headers), progress, max_bytes)
            finally:
                self._put_back(endpoint, connection)
        finally:
            self._limit.release()

    @asynccontextmanager
    async def held(
        self,
        endpoint: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        progress: RequestProgress,
        max_bytes: int,
    ) -> AsyncGenerator[HeldConnection, None]:
        """GET, over a connection of its own that is used for nothing else while the block runs. Raises as
        `exchange` does."""
        connection = await self._connect(endpoint, progress)
        try:
            _, body = await _ask(connection, endpoint, target, None, tuple(headers), progress, max_bytes)
            yield HeldConnection(body, connection.tcp, lasts=connection.lasts)
        finally:
            connection.close()

    def _take(self, endpoint: str) -> _Connection | None:
        kept = self._kept.get(endpoint, [])
        while kept:
            connection = kept.pop()
            if connection.usable():
                return connection
            connection.close()
        return None

    def _put_back(self, endpoint: str, connection: _Connection) -> None:
        if connection.lasts:
            connection.used_at = trio.current_time()
            self._kept.setdefault(endpoint, []).append(connection)
        else:
            connection.close()

    async def _connect(self, endpoint: str, progress: RequestProgress) -> _Connection:
        parts = urlsplit(endpoint)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
        tcp: trio.SocketStream | None = None
        try:
            with trio.fail_after(CONNECT_SECONDS):
                tcp = await trio.open_tcp_stream(host or "", port or (443 if scheme == "https" else 80))
                if scheme != "https":
                    return _Connection(tcp, tcp)
                secure = trio.SSLStream(tcp, self._context, server_hostname=host, https_compatible=True)
                progress.greeted = True
                await secure.do_handshake()
                return _Connection(tcp, secure)
        except BaseException as error:
            if tcp is not None:
                tcp.socket.close()
            if isinstance(error, trio.TooSlowError):
                raise httpx.ConnectTimeout("not connected in time") from error
            if isinstance(error, OSError | trio.BrokenResourceError):
                raise httpx.ConnectError(str(error)) from error
            raise


async def _ask(
    connection: _Connection,
    endpoint: str,
    target: str,
    body: bytes | None,
    headers: Fields,
    progress: RequestProgress,
    max_bytes: int,
) -> tuple[int, bytes]:
    length = None if body is None else len(body)
    progress.sending()
    connection.lasts = False
    try:
        await connection.stream.send_all(_head(endpoint, target, length, headers) + (body or b""))
        return await _answer(connection, max_bytes)
    except trio.BrokenResourceError as broken:
        raise httpx.ReadError(str(broken.__cause__ or broken)) from broken
    except h11.RemoteProtocolError as wrong:
        raise httpx.RemoteProtocolError(str(wrong)) from wrong


@lru_cache(maxsize=64)  # the polls ask the same again and again
def _head(endpoint: str, target: str, length: int | None, headers: Fields) -> bytes:
    """POST if there is a length of a body, else GET."""
    parts = urlsplit(endpoint)
    fields = [("Host", parts.netloc), *headers]
    if length is not None:
        fields.append(("Content-Length", str(length)))
    method = "GET" if length is None else "POST"
    # h11 refuses what would end a line.
    request = h11.Request(method=method, target=parts.path + target, headers=fields)
    return h11.Connection(h11.CLIENT).send(request) or b""


async def _answer(connection: _Connection, max_bytes: int) -> tuple[int, bytes]:
    """The next whole answer. Raises `h11.RemoteProtocolError` and `trio.BrokenResourceError`."""
    received = bytes(await connection.stream.receive_some(RECEIVE_BYTES))
    if not received:
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
    plain = _PLAIN.match(received)
    if plain is None:
        return await _other_answer(connection, received, max_bytes)
    end = plain.end() + int(plain["length"])
    if end - plain.end() > max_bytes:
        raise _too_long(max_bytes)
    parts, size = [received[plain.end() :]], len(received)
    while size < end:
        data = bytes(await connection.stream.receive_some(RECEIVE_BYTES))
        if not data:
            raise httpx.RemoteProtocolError("the connection was closed within an answer")
        parts.append(data)
        size += len(data)
    connection.lasts = size == end
    return int(plain["status"]), b"".join(parts)[: end - plain.end()]


async def _other_answer(connection: _Connection, received: bytes, max_bytes: int) -> tuple[int, bytes]:
    """One of any other form, of which this much has been received."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "etcd")]))
    http.send(h11.EndOfMessage())
    http.receive_data(received)
    status, parts, size = 0, [], 0
    while True:
        event = http.next_event()
        match event:
            case h11.NEED_DATA:
                data = await connection.stream.receive_some(RECEIVE_BYTES)
                if not data and not status:
                    raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
                http.receive_data(bytes(data))
            case h11.Response():
                status = event.status_code
            case h11.Data():
                parts.append(bytes(event.data))
                size += len(event.data)
                if size > max_bytes:
                    raise _too_long(max_bytes)
            case h11.EndOfMessage():
                connection.lasts = http.their_state is h11.DONE and not http.trailing_data[0]
                return status, b"".join(parts)
            case h11.ConnectionClosed():
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
            case _:
                pass  # 1xx


def _too_long(max_bytes: int) -> httpx.DecodingError:
    return httpx.DecodingError(f"the answer is longer than {max_bytes} bytes")
