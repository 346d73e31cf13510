"""The one port: accepts connections, reads the head of each request, and hands the request over.

Every request that is handed over is valid by `request_head.py`; all others are answered here. An exception in one
connection ends that connection only.
"""

from __future__ import annotations

import socket as stdlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

import structlog
import trio
from msgspec.structs import replace

from heliosd.web.forwarded import TrustedProxies
from heliosd.websocket.plain import CONNECTION_LOST, PlainStream
from heliosd.websocket.tls import ClientStream, TLSStream

from .early_response import refuse
from .listeners import Address, accept_each
from .request_head import BadHead, HeadBuffer, RequestHead, parse
from .websocket_upgrade import Upgrade, ordinary_upgrade, upgrade_of

HEAD_SECONDS = 5.0
IDLE_SECONDS = 75.0
"""Between two requests of a connection."""
MAX_REQUESTS = 1000
"""On one connection."""
WEBSOCKET_TASK = "websocket"
"""One name for the tasks of all WebSockets: Trio would make each its own text."""
_RECEIVE_BYTES = 16 * 1024
_FIRST_BYTES = 2048
"""Enough for an ordinary upgrade."""
HANDSHAKES_AT_ONCE = 32
"""With so many TLS handshakes under way, accepting pauses for a moment: each holds some 40 KiB, most of which the
process would keep for good. Earlier connections are served first."""
HANDSHAKE_PATIENCE = 0.02
"""The longest pause in seconds, so that stalled handshakes do not keep others out."""

Serve: TypeAlias = Callable[[RequestHead, bytes, ClientStream, Address], Awaitable[bytes | None]]
"""Serves one request: its head, the bytes that came behind it, the connection, the peer's address. Returns the
bytes behind the request if another one may follow on the connection, else None. Need not close the connection."""

ServeLive: TypeAlias = Callable[[Upgrade, bytes, ClientStream, Address], Awaitable[None]]
"""Serves one WebSocket, from its valid upgrade request on."""

log = structlog.get_logger("heliosd.web")


async def serve(
    listeners: Sequence[trio.SocketListener],
    *,
    rest: Serve,
    live: ServeLive,
    stop: trio.Event,
    tls: Callable[[], ssl.SSLContext] | None = None,
    head_seconds: float = HEAD_SECONDS,
    proxies: TrustedProxies = TrustedProxies(()),  # noqa: B008, never changed
    base_path: str = "",
    count_malformed: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until `stop` is set, and returns when the last connection has ended; cancelling cuts them.

    `live` gets valid WebSocket upgrades on `/ws/cluster`, `rest` every other request, of which none asks for an
    upgrade. `count_malformed` is called for each upgrade that is refused here. When `stop` is set, the listeners
    and the connections without a whole request are closed at once. Of requests that `proxies` forward, the handlers
    get the address, scheme and host of the client; and targets below `base_path` without it. `tls` is called for
    each connection.
    """
    async with trio.open_nursery() as connections:
        front = _Front(
            rest, live, tls, head_seconds, proxies, base_path.encode(), count_malformed, connections
        )
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(
                        accept_each, listener, front.take, front.wait_for_room, front.end_kept
                    )
                task_status.started()
                await stop.wait()
                accepting.cancel_scope.cancel()
        finally:
            for listener in listeners:
                listener.socket.close()
        front.end_idle()


@dataclass(slots=True)
class _Front:
    rest: Serve
    live: ServeLive
    tls: Callable[[], ssl.SSLContext] | None
    head_seconds: float
    proxies: TrustedProxies
    base_path: bytes
    count_malformed: Callable[[], None]
    connections: trio.Nursery
    _idle: dict[trio.CancelScope, bool] = field(default_factory=dict)
    """Connections that wait for a request; True: for the first."""
    _stopped: bool = False
    _handshakes: int = 0
    """TLS handshakes under way."""
    _handshake_done: trio.Event = field(default_factory=trio.Event)

    def end_idle(self) -> None:
        """Ends the connections that wait for a request."""
        self._stopped = True
        for scope in self._idle:
            scope.cancel()

    def end_kept(self) -> None:
        """Ends the connections that have had a response and wait for another request."""
        for scope, first in self._idle.items():
            if not first:
                scope.cancel()

    async def wait_for_room(self) -> None:
        """Waits while too many handshakes are under way, for `HANDSHAKE_PATIENCE` at most."""
        if self._handshakes >= HANDSHAKES_AT_ONCE:
            if self._handshake_done.is_set():  # else another listener waits for it already
                self._handshake_done = trio.Event()
            with trio.move_on_after(HANDSHAKE_PATIENCE):
                await self._handshake_done.wait()

    def take(self, socket: stdlib.socket, peer: Address) -> None:
        """Takes a new connection. When thousands come at once, their requests are there when they are accepted: an
        ordinary upgrade is then served without a task that waits for it."""
        if self.tls is not None and socket.family != stdlib.AF_UNIX:
            self.connections.start_soon(self.connection, TLSStream(socket, self.tls()), peer, b"")
            return
        stream = PlainStream(socket)
        try:
            data = stream.read_now(_FIRST_BYTES) or b""
        except OSError:
            data = b""  # found again by the task that serves it
        upgrade = ordinary_upgrade(data) if data and not self.proxies.trusts(peer.host) else None
        if upgrade is None:
            self.connections.start_soon(self.connection, stream, peer, data)
        else:
            self.connections.start_soon(self.websocket, upgrade, b"", stream, peer, name=WEBSOCKET_TASK)

    async def websocket(self, upgrade: Upgrade, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        """Serves a WebSocket in a task that holds nothing else."""
        try:
            serving = self.live(upgrade, trailing, stream, peer)
            del upgrade, trailing, peer
            await serving
        except* CONNECTION_LOST:
            pass
        except* Exception:
            log.exception("connection failed")
        finally:
            await stream.aclose()

    async def connection(self, stream: ClientStream, peer: Address, received: bytes) -> None:
        """Serves any connection, of which the bytes `received` have been read already."""
        handed_on = False
        try:
            handed_on = await self._requests(stream, peer, received)
        except* CONNECTION_LOST:
            log.debug("connection lost", peer=str(peer))
        except* Exception:
            log.exception("connection failed", peer=str(peer))
        finally:
            if not handed_on:
                await stream.aclose()

    async def _requests(self, stream: ClientStream, peer: Address, received: bytes) -> bool:
        """Reads requests and has them served. Returns whether the connection is another task's now."""
        scheme = "https" if isinstance(stream, TLSStream) else "http"
        known = b""
        head: RequestHead | None = None
        with trio.CancelScope() as idle:
            for number in range(1, MAX_REQUESTS + 1):
                whole = None
                try:
                    whole = await self._read_head(stream, received, idle, first=number == 1)
                    if whole is None:
                        return False
                    if number == 1 and not whole[1] and not self.proxies.trusts(peer.host):
                        ordinary = ordinary_upgrade(whole[0])
                        if ordinary is not None:
                            self.connections.start_soon(
                                self.websocket, ordinary, b"", stream, peer, name=WEBSOCKET_TASK
                            )
                            return True
                    # Who asks again and again sends the same head, which is judged once.
                    if whole[0] != known:
                        head = None
                        head, client = self._as_sent(parse(whole[0], scheme), peer)
                        upgrade = upgrade_of(head)
                        known = whole[0]
                except BadHead as bad:
                    if whole is None:
                        head = None  # that is the one before
                    if head is not None and head.all(b"upgrade"):
                        self.count_malformed()
                    body = head is None or head.method != "HEAD"
                    await refuse(stream, bad.status, bad.reason, bad.headers, body=body)
                    return False
                assert head is not None
                if upgrade is not None:
                    self.connections.start_soon(
                        self.websocket, upgrade, whole[1], stream, client, name=WEBSOCKET_TASK
                    )
                    return True
                last = number == MAX_REQUESTS or self._stopped
                asked = replace(head, keep_alive=False) if last else head
                behind = await self.rest(asked, whole[1], stream, client)
                if behind is None:
                    return False
                received = behind
        return False

    def _as_sent(self, head: RequestHead, peer: Address) -> tuple[RequestHead, Address]:
        """The request as its client sent it, before a trusted proxy forwarded it, and the client's address."""
        if self.base_path and head.target.startswith(self.base_path):
            below = head.target[len(self.base_path) :]
            if not below or below.startswith(b"?"):
                raise BadHead(308, "The page is one level below", (("Location", f"{head.path}/"),))
            if below.startswith(b"/"):
                head = replace(head, target=below)
        if not self.proxies.trusts(peer.host):
            return head, peer
        fields = {
            name.decode("ascii"): b",".join(value).decode("latin-1") for name, value in head.values.items()
        }
        try:
            client, scheme, host = self.proxies.read(fields)
        except ValueError as wrong:
            raise BadHead(400, str(wrong)) from None
        headers = head.headers
        if host is not None:
            head.values[b"host"] = [host.encode("ascii")]
            headers = (*(each for each in headers if each[0] != b"host"), (b"host", host.encode("ascii")))
        head = replace(head, scheme=scheme or head.scheme, headers=headers)
        return head, peer if client is None else Address(*client)

    async def _read_head(
        self, stream: ClientStream, received: bytes, idle: trio.CancelScope, *, first: bool
    ) -> tuple[bytes, bytes] | None:
        """The bytes of the next head and those behind it; None when none comes in time, or the daemon stops. `idle`
        is around all of the connection, and is cancelled only while it waits here.

        A checkpoint for all but the first.
        """
        if self._stopped:
            return None
        if received and not first:
            await trio.lowlevel.checkpoint()  # many requests may have come at once
        buffer = HeadBuffer()
        idle.deadline = trio.current_time() + (self.head_seconds if first else IDLE_SECONDS)
        self._idle[idle] = first
        try:
            if first and isinstance(stream, TLSStream):
                await self._do_handshake(stream)
            while data := received or await stream.receive_some(_RECEIVE_BYTES):
                received = b""
                if whole := buffer.feed(data):
                    # The rest of the connection would be cancelled, too, in the midst of a request.
                    return None if idle.cancel_called else whole
                idle.deadline = min(idle.deadline, trio.current_time() + self.head_seconds)
        finally:
            del self._idle[idle]
            idle.deadline = inf
        return None

    async def _do_handshake(self, stream: TLSStream) -> None:
        self._handshakes += 1
        try:
            await stream.do_handshake()
        finally:
            self._handshakes -= 1
            if self._handshakes < HANDSHAKES_AT_ONCE:
                self._handshake_done.set()
