"""Requests to etcd's endpoints: HTTP/1.1 over TCP or TLS, written by h11.

Short ones go over connections that are kept. They are most of what an idle heliosd does: over httpx they cost three
times as much, and httpx takes 5 MiB.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from urllib.parse import urlsplit

import h11
import trio

from .answers import ArrivingAnswer, read_answer, read_dated_answer
from .no_answer import CONNECT_SECONDS, MAX_CONNECTIONS, ConnectTimeout, HttpFault, NoneFree
from .progress import RequestProgress
from .tcp_stream import TcpStream

IDLE_SECONDS = 60.0
"""A connection that was not used for so long is closed."""
Fields = tuple[tuple[str, str], ...]


class _Connection:
    """One connection to one endpoint. `stream` is `tcp`, or TLS over it."""

    def __init__(self, tcp: TcpStream, stream: trio.abc.Stream) -> None:
        self.tcp = tcp
        self.stream = stream
        self.lasts = False
        """It can be used for another request."""
        self.used_at = trio.current_time()
        self._arrived = select.poll()
        self._arrived.register(tcp.socket.fileno(), select.POLLIN)

    def usable(self) -> bool:
        """Neither closed by the other side (or sent something unasked), nor idle for long."""
        return trio.current_time() - self.used_at <= IDLE_SECONDS and not self._arrived.poll(0)

    def close(self) -> None:
        self.tcp.socket.close()


class HeldConnection:
    """A connection that has had one answer, `body`, at `date` (Unix seconds of the other side; None: not known).
    `lasts`: the other side keeps it open for another request."""

    def __init__(self, body: bytes, date: float | None, tcp: TcpStream, *, lasts: bool) -> None:
        self.body = body
        self.date = date
        self.lasts = lasts
        self._tcp = tcp

    async def closed(self) -> bool:
        """Wait until it has ended. Returns whether the other side has ended it: then its process has ended, or is
        about to. Otherwise the network has, as the kernel found."""
        await trio.lowlevel.wait_readable(self._tcp.socket)
        return self._tcp.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNRESET)


class ShortRequests:
    """At most `MAX_CONNECTIONS` exchanges at a time; streams and held connections are not counted. `context`
    gives the one for a new TLS connection, and what it raises is raised. Raises `HttpFault`."""

    def __init__(self, context: Callable[[], Awaitable[ssl.SSLContext]]) -> None:
        self._context = context
        self._kept: dict[str, list[_Connection]] = {}
        self._limit = trio.Semaphore(MAX_CONNECTIONS)
        self._sweep_at = 0.0

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
        """POST if there is a body, else GET. Returns status and body; one of more than `max_bytes` is a fault."""
        await self._permit()
        try:
            connection = self._take(endpoint) or await self._connect(endpoint, progress)
            try:
                await _send(connection, endpoint, target, body, tuple(headers), progress)
                answer = await read_answer(connection.stream, max_bytes)
                connection.lasts = answer.lasts
                return answer.status, answer.body
            finally:
                self._put_back(endpoint, connection)
        finally:
            self._limit.release()

    async def answers_the_same(
        self, endpoint: str, target: str, body: bytes, headers: Iterable[tuple[str, str]], last: bytes
    ) -> bool:
        """Whether a POST is answered by status 200 and this body, over a connection that is kept. False also if
        there is none, and after a fault."""
        connection = self._take(endpoint)
        if connection is None:
            return False
        try:
            await _send(connection, endpoint, target, body, tuple(headers), RequestProgress())
            answer = await read_answer(connection.stream, len(last))
        except HttpFault:
            return False
        else:
            connection.lasts = answer.lasts
            return answer.status == 200 and answer.body == last
        finally:
            self._put_back(endpoint, connection)

    async def _permit(self) -> None:
        # Each wait that ends at once costs a turn of the loop, and an idle daemon asks a dozen times a second.
        with suppress(trio.WouldBlock):
            self._limit.acquire_nowait()
            return
        with trio.move_on_after(CONNECT_SECONDS) as waited:
            await self._limit.acquire()
        if waited.cancelled_caught:
            raise NoneFree("no connection was free")

    @asynccontextmanager
    async def held(
        self,
        endpoint: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        progress: RequestProgress,
        max_bytes: int,
    ) -> AsyncGenerator[HeldConnection, None]:
        """GET, over a connection of its own that is used for nothing else while the block runs."""
        connection = await self._connect(endpoint, progress)
        try:
            await _send(connection, endpoint, target, None, tuple(headers), progress)
            answer, date = await read_dated_answer(connection.stream, max_bytes)
            yield HeldConnection(answer.body, date, connection.tcp, lasts=answer.lasts)
        finally:
            connection.close()

    @asynccontextmanager
    async def arriving(
        self,
        endpoint: str,
        target: str,
        body: bytes | None,
        headers: Iterable[tuple[str, str]],
        progress: RequestProgress,
    ) -> AsyncGenerator[ArrivingAnswer, None]:
        """As `exchange`, over a connection of its own; the body is read while the block runs."""
        connection = await self._connect(endpoint, progress)
        try:
            await _send(connection, endpoint, target, body, tuple(headers), progress)
            answer = ArrivingAnswer(connection.stream)
            await answer.begin()
            yield answer
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
        if trio.current_time() >= self._sweep_at:
            self._sweep_at = trio.current_time() + IDLE_SECONDS
            self._sweep()

    def _sweep(self) -> None:
        """Close what nobody will take any more: also of endpoints that are asked no more."""
        for endpoint, kept in list(self._kept.items()):
            for connection in [each for each in kept if not each.usable()]:
                kept.remove(connection)
                connection.close()
            if not kept:
                del self._kept[endpoint]

    async def _connect(self, endpoint: str, progress: RequestProgress) -> _Connection:
        parts = urlsplit(endpoint)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
        tcp: TcpStream | None = None
        context = await self._context() if scheme == "https" else None
        try:
            with trio.fail_after(CONNECT_SECONDS):
                opened = await trio.open_tcp_stream(host or "", port or (443 if scheme == "https" else 80))
                tcp = TcpStream(opened.socket)
                if context is None:
                    return _Connection(tcp, tcp)
                secure = trio.SSLStream(tcp, context, server_hostname=host, https_compatible=True)
                progress.greeted = True
                await secure.do_handshake()
                return _Connection(tcp, secure)
        except BaseException as error:
            if tcp is not None:
                tcp.socket.close()
            if isinstance(error, trio.TooSlowError):
                raise ConnectTimeout("not connected in time") from error
            if isinstance(error, OSError | trio.BrokenResourceError):
                raise HttpFault(str(error)) from error
            raise


async def _send(
    connection: _Connection,
    endpoint: str,
    target: str,
    body: bytes | None,
    headers: Fields,
    progress: RequestProgress,
) -> None:
    length = None if body is None else len(body)
    await trio.lowlevel.checkpoint_if_cancelled()  # what was not sent has no unknown outcome
    progress.sending()
    connection.lasts = False
    try:
        await connection.stream.send_all(_head(endpoint, target, length, headers) + (body or b""))
    except trio.BrokenResourceError as broken:
        raise HttpFault(str(broken.__cause__ or broken)) from broken
    except h11.LocalProtocolError as wrong:
        raise HttpFault(str(wrong)) from wrong


@lru_cache(maxsize=64)  # the polls ask the same again and again
def _head(endpoint: str, target: str, length: int | None, headers: Fields) -> bytes:
    """POST if there is a length of a body, else GET."""
    parts = urlsplit(endpoint)
    fields = [("Host", parts.netloc), *headers]
    if length is not None:
        fields.append(("Content-Length", str(length)))
    method = "GET" if length is None else "POST"
    # h11 refuses what would end a line, as a LocalProtocolError.
    request = h11.Request(method=method, target=parts.path + target, headers=fields)
    return h11.Connection(h11.CLIENT).send(request) or b""
