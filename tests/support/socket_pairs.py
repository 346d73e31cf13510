"""What the tests of the read pump share: a connection, and a read pump on our end of it."""

from __future__ import annotations

import os
import socket as stdlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import wait_all_tasks_blocked

from heliosd.auth.identity import Identity, TokenOrigin
from heliosd.hub.client import HubClient
from heliosd.web.stream.read_pump import ReadPump
from heliosd.websocket.connection import Inbound
from heliosd.websocket.frames import ends_whole
from heliosd.websocket.plain import PlainStream
from heliosd.websocket.readiness import Readiness
from heliosd.websocket.tls import ClientStream, TLSStream

from .front_server import becomes, tls_contexts

LIMIT_SECONDS = 60
NEVER = -1.0
SOMEBODY = Identity(
    user_id="somebody",
    roles=(),
    permissions=frozenset(),
    jti="jti",
    issued_at=0.0,
    expires_at=1e11,
    token_origin=TokenOrigin(issuer="", audience="", key="", password=""),
)


@asynccontextmanager
async def connected(over_tls: bool) -> AsyncIterator[tuple[ClientStream, trio.abc.Stream]]:
    """Our end and the peer's, after the handshake."""
    with stdlib.create_server(("127.0.0.1", 0)) as listener:
        socket = trio.socket.socket()
        await socket.connect(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    far = trio.SocketStream(socket)
    ours: ClientStream = PlainStream(near)
    theirs: trio.abc.Stream = far
    if over_tls:
        server, client = tls_contexts()
        ours = TLSStream(near, server)
        theirs = trio.SSLStream(far, client, server_hostname="127.0.0.1", https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.do_handshake)
            nursery.start_soon(theirs.do_handshake)
    try:
        yield ours, theirs
    finally:
        ours.abort()
        socket.close()


def transport(stream: trio.abc.Stream) -> trio.SocketStream:
    """The connection under the peer's end."""
    under = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(under, trio.SocketStream)
    return under


def moved_to(number: int, stream: PlainStream) -> PlainStream:
    """The same connection under the descriptor `number`, as if that had been free when it was accepted."""
    os.dup2(stream.fileno(), number)
    stream.socket.close()
    return PlainStream(stdlib.socket(fileno=number))


def client_of(stream: ClientStream) -> HubClient:
    client = HubClient(
        serial=1,
        id="c1",
        identity=SOMEBODY,
        address="127.0.0.1:1",
        since=0.0,
        transport=stream,
        send_buffer=10,
    )
    client.heard = NEVER
    return client


@dataclass
class Pumped:
    """A client's stream with its read pump, and what a task like a connection's has received from it."""

    stream: ClientStream
    readiness: Readiness
    pump: ReadPump = field(init=False)
    client: HubClient = field(init=False)
    got: list[bytes | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = client_of(self.stream)
        self.pump = ReadPump(self.client, self.stream, self.readiness)
        self.client.reader = self.pump

    @property
    def data(self) -> bytes:
        return b"".join(piece or b"" for piece in self.got)

    async def take(self) -> bytes | None:
        """What the pump returns next; a parser is set for as long as the client is in the middle of a message."""
        piece = await self.pump.receive()
        self.got.append(piece)
        self.pump.inbound = None if ends_whole(self.data) else Inbound(1)
        return piece

    async def run(self) -> None:
        """Take until the end."""
        while await self.take() != b"":
            pass

    async def noted(self) -> None:
        """Returns once bytes have come and all of them are handled. Resets `client.heard`."""
        await becomes(lambda: self.client.heard != NEVER)
        await wait_all_tasks_blocked()
        self.client.heard = NEVER


@asynccontextmanager
async def running_readiness() -> AsyncIterator[tuple[Readiness, trio.Nursery]]:
    """A running `Readiness`, and a nursery for readers."""
    readiness = Readiness()
    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readiness.run)
            yield readiness, nursery
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def pumped(over_tls: bool) -> AsyncIterator[tuple[Pumped, trio.abc.Stream, trio.Nursery]]:
    """A pump on our end, the peer's end, and a nursery for readers."""
    async with connected(over_tls) as (ours, theirs), running_readiness() as (readiness, nursery):
        mine = Pumped(ours, readiness)
        yield mine, theirs, nursery
        mine.pump.close()
