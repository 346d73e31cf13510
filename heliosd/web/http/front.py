"""The one port: accepts connections, reads each request's head, and hands the connection over.

Whoever gets a connection here gets a request that is valid by `head.py`; everything else has been answered. A
fault in one connection ends that connection.
"""

from __future__ import annotations

import socket as stdlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog
import trio

from heliosd.websocket.plain import PlainStream
from heliosd.websocket.tls import ClientStream, TLSStream

from .early_response import refuse
from .listeners import Address, accept_each
from .request_head import BadHead, HeadBuffer, RequestHead, parse
from .websocket_upgrade import Upgrade, ordinary_upgrade, upgrade_of

HEAD_SECONDS = 5.0
_RECEIVE_BYTES = 16 * 1024
_FIRST_BYTES = 2048
"""Enough for an ordinary upgrade."""
HANDSHAKES_AT_ONCE = 32
"""TLS handshakes under way, beyond which no more connections are accepted for a moment: each holds some 40 KiB, and
most of that the process would keep for good. Those who came first are served first."""
HANDSHAKE_PATIENCE = 0.02
"""That moment's length at most, in seconds: who stalls in a handshake keeps nobody else out."""

Serve: TypeAlias = Callable[[RequestHead, bytes, ClientStream, Address], Awaitable[None]]
"""Serves one connection from its first request on: the head, the bytes that came behind it, the connection, its
peer. Need not close the connection."""

ServeLive: TypeAlias = Callable[[Upgrade, bytes, ClientStream, Address], Awaitable[None]]
"""The same for a WebSocket, from its valid upgrade request on."""

log = structlog.get_logger("heliosd.web")


async def serve(
    listeners: Sequence[trio.SocketListener],
    *,
    rest: Serve,
    live: ServeLive,
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
    async with trio.open_nursery() as connections:
        front = _Front(rest, live, tls, head_seconds, count_malformed, connections)
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(accept_each, listener, front.take, front.until_there_is_room)
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
    live: ServeLive
    tls: ssl.SSLContext | None
    head_seconds: float
    count_malformed: Callable[[], None]
    connections: trio.Nursery
    _unasked: set[trio.CancelScope] = field(default_factory=set)
    _stopped: bool = False
    _shaking: int = 0
    """TLS handshakes under way."""
    _shaken: trio.Event = field(default_factory=trio.Event)

    def end_unasked(self) -> None:
        """Ends the connections that have not asked for anything."""
        self._stopped = True
        for scope in self._unasked:
            scope.cancel()

    async def until_there_is_room(self) -> None:
        """Wait for the handshakes that are under way, if they are many; for `HANDSHAKE_PATIENCE` at most."""
        if self._shaking >= HANDSHAKES_AT_ONCE:
            if self._shaken.is_set():  # else another listener waits for it already
                self._shaken = trio.Event()
            with trio.move_on_after(HANDSHAKE_PATIENCE):
                await self._shaken.wait()

    def take(self, socket: stdlib.socket, peer: Address) -> None:
        """A new connection. Where thousands come at once, their requests are here as soon as they are: an ordinary
        upgrade is served without a task that waits for it."""
        if self.tls is not None:
            self.connections.start_soon(self.connection, TLSStream(socket, self.tls), peer, b"")
            return
        stream = PlainStream(socket)
        try:
            data = stream.read_now(_FIRST_BYTES) or b""
        except OSError:
            data = b""  # whoever serves it will see
        upgrade = ordinary_upgrade(data) if data else None
        if upgrade is None:
            self.connections.start_soon(self.connection, stream, peer, data)
        else:
            self.connections.start_soon(self.websocket, upgrade, b"", stream, peer)

    async def websocket(self, upgrade: Upgrade, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        """A WebSocket from its request on, in a task that has nothing else to keep."""
        try:
            serving = self.live(upgrade, trailing, stream, peer)
            del upgrade, trailing, peer
            await serving
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except* Exception:
            log.exception("connection failed")
        finally:
            await stream.aclose()

    async def connection(self, stream: ClientStream, peer: Address, came: bytes) -> None:
        """Any connection, from its first byte on, of which some may have come."""
        handed_on = False
        try:
            handed_on = await self._greet(stream, peer, came)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("connection lost", peer=str(peer))
        except* Exception:
            log.exception("connection failed", peer=str(peer))
        finally:
            if not handed_on:
                await stream.aclose()

    async def _greet(self, stream: ClientStream, peer: Address, came: bytes) -> bool:
        """Reads the request and has it served. Whether the connection is another task's now."""
        try:
            with trio.move_on_after(self.head_seconds) as limit:
                whole = await self._head(stream, limit, came)
            if limit.cancelled_caught or whole is None:
                return False
            head, trailing = parse(whole[0]), whole[1]
        except BadHead as bad:
            await refuse(stream, bad.status, bad.reason, bad.headers)
            return False
        try:
            upgrade = upgrade_of(head)
        except BadHead as bad:
            if head.all(b"upgrade"):
                self.count_malformed()
            await refuse(stream, bad.status, bad.reason, bad.headers, body=head.method != "HEAD")
            return False
        if upgrade is None:
            await self.rest(head, trailing, stream, peer)
            return False
        self.connections.start_soon(self.websocket, upgrade, trailing, stream, peer)
        return True

    async def _head(
        self, stream: ClientStream, limit: trio.CancelScope, came: bytes
    ) -> tuple[bytes, bytes] | None:
        """The bytes of the head and those behind it; None when the peer left or the daemon stops."""
        if self._stopped:
            return None
        self._unasked.add(limit)
        try:
            if isinstance(stream, TLSStream):
                await self._shake_hands(stream)
            buffer = HeadBuffer()
            while data := came or await stream.receive_some(_RECEIVE_BYTES):
                came = b""
                if whole := buffer.feed(data):
                    return whole
            return None
        finally:
            self._unasked.discard(limit)

    async def _shake_hands(self, stream: TLSStream) -> None:
        self._shaking += 1
        try:
            await stream.do_handshake()
        finally:
            self._shaking -= 1
            if self._shaking < HANDSHAKES_AT_ONCE:
                self._shaken.set()
