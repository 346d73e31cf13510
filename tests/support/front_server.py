"""What the tests of the front share: a front on loopback, a raw client, a certificate."""

from __future__ import annotations

import socket as stdlib
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from heliosd.config.addresses import Listen
from heliosd.web.forwarded import TrustedProxies
from heliosd.web.http.front import Serve, ServeLive, serve
from heliosd.web.http.listeners import Address, open_listeners
from heliosd.web.http.request_head import RequestHead
from heliosd.web.http.websocket_upgrade import Upgrade
from heliosd.websocket.tls import ClientStream, server_context

from .certificates import self_signed

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="


def upgrade(target: bytes = b"/ws/cluster", *lines: bytes) -> bytes:
    """A valid WebSocket upgrade."""
    fields = (
        b"GET " + target + b" HTTP/1.1",
        b"Host: a",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + KEY,
        *lines,
    )
    return b"\r\n".join((*fields, b"", b""))


async def no_request(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
    raise AssertionError(f"no request was expected, with {head.target!r}")


async def no_client(upgrade: Upgrade, trailing: bytes, stream: ClientStream, peer: Address) -> None:
    raise AssertionError(f"no client was expected, with {upgrade.query!r}")


class Front:
    """A front that serves on 127.0.0.1, and its stop."""

    def __init__(self, port: int, stop: trio.Event) -> None:
        self.port = port
        self.stop = stop
        self.ended = trio.Event()

    async def connect(self, receive_buffer: int | None = None) -> trio.SocketStream:
        socket = trio.socket.socket()
        if receive_buffer is not None:
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, receive_buffer)
        try:
            await socket.connect(("127.0.0.1", self.port))
        except BaseException:
            socket.close()
            raise
        return trio.SocketStream(socket)

    async def ask(self, request: bytes) -> bytes:
        """Sends and reads until the other side ends; closes."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            return await read_all(stream)


@asynccontextmanager
async def open_front(
    *,
    rest: Serve = no_request,
    live: ServeLive = no_client,
    tls: ssl.SSLContext | None = None,
    tls_source: Callable[[], ssl.SSLContext] | None = None,
    head_seconds: float = 5.0,
    listen: Listen = Listen("127.0.0.1", 0),  # noqa: B008, frozen
    proxies: Iterable[str] = (),
    base_path: str = "",
    count_malformed: Callable[[], None] = lambda: None,
) -> AsyncIterator[Front]:
    listeners = await open_listeners(listen)
    name = listeners[0].socket.getsockname()
    front = Front(name[1] if isinstance(name, tuple) else 0, trio.Event())

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await serve(
            listeners,
            rest=rest,
            live=live,
            stop=front.stop,
            tls=(lambda: tls) if tls is not None else tls_source,
            head_seconds=head_seconds,
            proxies=TrustedProxies(proxies),
            base_path=base_path,
            count_malformed=count_malformed,
            task_status=task_status,
        )
        front.ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield front
        nursery.cancel_scope.cancel()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """All bytes until the other side ends."""
    answer = bytearray()
    while data := await stream.receive_some(65536):
        answer += data
    return bytes(answer)


async def becomes(condition: Callable[[], bool]) -> None:
    """Returns once `condition` holds; the caller sets the time limit."""
    while not condition():  # noqa: ASYNC110, sockets, descriptors and log lines have no event to wait for
        await trio.sleep(0.005)


def reset(stream: trio.SocketStream) -> None:
    """Closes a connection with a reset."""
    stream.socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@cache
def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for 127.0.0.1, and a client's that trusts it."""
    with TemporaryDirectory() as folder:
        cert_file, key_file = self_signed(Path(folder))
        return server_context(cert_file, key_file), ssl.create_default_context(cafile=str(cert_file))
