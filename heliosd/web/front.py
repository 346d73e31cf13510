"""The one port: accepts connections, reads each request's head, and hands the connection over.

Whoever gets a connection here gets a request that is valid by `head.py`; everything else has been answered. A
fault in one connection ends that connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog
import trio

from ..websocket.plain import PlainStream, prepare
from ..websocket.tls import ClientStream, TLSStream
from .head import BadHead, Head, HeadBuffer, parse, websocket_key
from .listeners import Address, accept_each
from .refusal import refuse

HEAD_SECONDS = 5.0
_RECEIVE_BYTES = 16 * 1024

Serve: TypeAlias = Callable[[Head, bytes, ClientStream, Address], Awaitable[None]]
"""Serves one connection from its first request on: the head, the bytes that came behind it, the connection, its
peer. Need not close the connection."""

log = structlog.get_logger("heliosd.web")


async def serve(
    listeners: Sequence[trio.SocketListener],
    *,
    rest: Serve,
    live: Serve,
    stop: trio.Event,
    tls: ssl.SSLContext | None = None,
    head_seconds: float = HEAD_SECONDS,
    count_malformed: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until `stop` is set, and returns when the last connection has ended; cancelling cuts them.

    `live` gets valid WebSocket upgrades on `/ws/cluster`, `rest` every other request, of which none asks for an
    upgrade. `count_malformed` is called for each upgrade that is refused here. At the stop the listeners are closed
    first; connections whose request is not whole yet are closed with them.
    """
    front = _Front(rest, live, tls, head_seconds, count_malformed)
    async with trio.open_nursery() as connections:

        def take(socket: trio.socket.SocketType, peer: Address) -> None:
            connections.start_soon(front.connection, trio.SocketStream(socket), peer)

        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(accept_each, listener, take)
                task_status.started()
                await stop.wait()
                accepting.cancel_scope.cancel()
        finally:
            for listener in listeners:
                listener.socket.close()
        front.end_unasked()


@dataclass(slots=True)
class _Front:
    rest: Serve
    live: Serve
    tls: ssl.SSLContext | None
    head_seconds: float
    count_malformed: Callable[[], None]
    _unasked: set[trio.CancelScope] = field(default_factory=set)
    _stopped: bool = False

    def end_unasked(self) -> None:
        """Ends the connections that have not asked for anything."""
        self._stopped = True
        for scope in self._unasked:
            scope.cancel()

    async def connection(self, transport: trio.SocketStream, peer: Address) -> None:
        stream = PlainStream(transport) if self.tls is None else TLSStream(transport, self.tls)
        try:
            prepare(transport.socket)
            served = await self._greet(stream, peer)
            if served is not None:
                await served
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("connection lost", peer=str(peer))
        except* Exception:
            log.exception("connection failed", peer=str(peer))
        finally:
            await stream.aclose()

    async def _greet(self, stream: ClientStream, peer: Address) -> Awaitable[None] | None:
        """Reads the request and chooses who serves it. None: it is answered, or there was none.

        What serves it is returned, not awaited here: no frame below a WebSocket that lives for months shall hold
        on to its head.
        """
        try:
            with trio.move_on_after(self.head_seconds) as limit:
                whole = await self._head(stream, limit)
            if limit.cancelled_caught or whole is None:
                return None
            head, trailing = parse(whole[0]), whole[1]
        except BadHead as bad:
            await refuse(stream, bad.status, bad.reason, bad.headers)
            return None
        try:
            key = websocket_key(head)
        except BadHead as bad:
            if head.all(b"upgrade"):
                self.count_malformed()
            await refuse(stream, bad.status, bad.reason, bad.headers, body=head.method != "HEAD")
            return None
        serve = self.rest if key is None else self.live
        return serve(head, trailing, stream, peer)

    async def _head(self, stream: ClientStream, limit: trio.CancelScope) -> tuple[bytes, bytes] | None:
        """The bytes of the head and those behind it; None when the peer left or the daemon stops."""
        if self._stopped:
            return None
        self._unasked.add(limit)
        try:
            if isinstance(stream, TLSStream):
                await stream.do_handshake()
            buffer = HeadBuffer()
            while data := await stream.receive_some(_RECEIVE_BYTES):
                if whole := buffer.feed(data):
                    return whole
            return None
        finally:
            self._unasked.discard(limit)
