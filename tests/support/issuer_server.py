"""An outside issuer on the loopback: it publishes what a test puts into it, or misbehaves as a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

import trio

from .issuer_tokens import document, jwk, key, signed

Manner = Literal["well", "silent", "hangs up", "drips", "drips its head", "huge", "endless", "redirects"]


class IssuerServer:
    """`published` are the keys by `kid` (the kind of key); `requests` the request lines and headers so far."""

    def __init__(self) -> None:
        self.port = 0
        self.manner: Manner = "well"
        self.status = "200 OK"
        self.published: dict[str, tuple[str, int]] = {"k1": ("EdDSA", 0)}
        self.answer: bytes | None = None
        """Sent in place of the document."""
        self.requests: list[bytes] = []
        self.open = 0
        """Connections at the moment."""
        self.came = trio.Event()
        self.release = trio.Event()
        """What a silent server waits for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys?v=1"

    def token(self, kid: str, **changes: Any) -> str:
        """A token signed by the key that is, or was, published under that name."""
        kind, serial = self.published.get(kid, ("EdDSA", 0))
        return signed(key(kind, serial), kid, alg=kind, **changes)

    async def serve(self, stream: trio.SocketStream) -> None:
        self.open += 1
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._answer(stream)
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = await stream.receive_some(4096)
            if not received:
                return
            head += received
        self.requests.append(head)
        self.came.set()
        body = self.answer
        if body is None:
            body = document(*(jwk(key(*made), kid) for kid, made in self.published.items()))
        start = f"HTTP/1.1 {self.status}\r\nContent-Type: application/json\r\n".encode()
        match self.manner:
            case "well":
                await stream.send_all(start + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            case "silent":
                await self.release.wait()
                await stream.send_all(start + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            case "hangs up":
                pass
            case "drips":
                await self._drip(stream, start + b"Content-Length: 100000\r\n\r\n")
            case "drips its head":
                await self._drip(stream, b"HTTP/1.1 200 OK\r\nX: ")
            case "huge":
                await stream.send_all(start + b"Content-Length: 1000000000\r\n\r\n")
                while True:
                    await stream.send_all(b" " * 65_536)
            case "endless":
                await stream.send_all(start + b"Transfer-Encoding: chunked\r\n\r\n")
                while True:
                    await stream.send_all(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            case "redirects":
                where = f"http://127.0.0.1:{self.port}/elsewhere".encode()
                await stream.send_all(
                    b"HTTP/1.1 302 Found\r\nLocation: " + where + b"\r\nContent-Length: 0\r\n\r\n"
                )

    async def _drip(self, stream: trio.SocketStream, start: bytes) -> None:
        await stream.send_all(start)
        while True:
            await stream.send_all(b" ")
            await trio.sleep(0.02)  # slower than anyone should wait for, which is what is tested


@asynccontextmanager
async def issuer_server() -> AsyncIterator[IssuerServer]:
    server = IssuerServer()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()
