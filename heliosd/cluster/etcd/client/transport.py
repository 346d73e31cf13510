"""One HTTP request to one endpoint of etcd, over httpx on Trio: TLS, limits, and why there was no answer."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import trio

from heliosd.config.model import EtcdConfig

from .no_answer import CONNECT_SECONDS, MAX_CONNECTIONS, NoAnswer, no_answer
from .progress import RequestProgress
from .short_requests import HeldConnection, ShortRequests

MAX_IDLE_CONNECTIONS = 16
IDLE_SECONDS = 60.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
CLEANUP_SECONDS = 1.0

FIELDS = {"User-Agent": "heliosd", "Accept-Encoding": "identity"}
FAULTS = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL)
"""Everything that httpx, and `ShortRequests`, raise for faults of the other side or of the network."""


@dataclass(frozen=True, slots=True)
class GatewayRequest:
    """A request: POST if it has a body, else GET. Its `repr` shows neither body nor token."""

    endpoint: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayReply:
    """The status of an answer, and `chunks`, its body as it arrives. Errors are raised as `NoAnswer`."""

    status: int
    chunks: AsyncIterator[bytes]

    async def content(self) -> bytes:
        """The whole body. Raises `NoAnswer`, also if it is too long."""
        parts, size = [], 0
        async for chunk in self.chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise NoAnswer(f"the answer is longer than {MAX_ANSWER_BYTES} bytes", sent=True)
        return b"".join(parts)


class GatewayTransport:
    """A bounded pool of connections to all endpoints. Open it with `async with`.

    Certificates are read when they are first needed, and again when their files change: connections made from then
    on use them, and an authority once trusted stays so until a restart. Each request that needs a file that cannot
    be used raises `NoAnswer`.
    """

    def __init__(self, config: EtcdConfig) -> None:
        self._files = (config.ca_cert, config.client_cert, config.client_key)
        self._shows_certificate = config.client_cert is not None
        self._loaded: object = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.set_alpn_protocols(["http/1.1"])
        self._short = ShortRequests(self._context)
        self._client = httpx.AsyncClient(
            verify=self._context,
            trust_env=False,
            follow_redirects=False,
            headers=FIELDS,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_IDLE_CONNECTIONS,
                keepalive_expiry=IDLE_SECONDS,
            ),
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._short.close()
        with trio.move_on_after(CLEANUP_SECONDS, shield=True):
            await self._client.aclose()

    async def answer(self, ask: GatewayRequest, progress: RequestProgress) -> tuple[int, bytes]:
        """Status and body. Raises `NoAnswer`. No deadline of its own except for connecting."""
        if ask.endpoint.startswith("https:"):
            self._read_certificates()
        headers = [*FIELDS.items(), *ask.headers, *([("Authorization", ask.token)] if ask.token else [])]
        try:
            return await self._short.exchange(
                ask.endpoint, ask.path, ask.body, headers, progress, MAX_ANSWER_BYTES
            )
        except FAULTS as error:
            raise self._no_answer(error, ask, progress) from None

    @asynccontextmanager
    async def held(
        self, ask: GatewayRequest, progress: RequestProgress
    ) -> AsyncGenerator[HeldConnection, None]:
        """The answer to a GET, over a connection of its own; see `HeldConnection`. Raises `NoAnswer`."""
        if ask.endpoint.startswith("https:"):
            self._read_certificates()
        try:
            async with self._short.held(
                ask.endpoint, ask.path, FIELDS.items(), progress, MAX_ANSWER_BYTES
            ) as held:
                yield held
        except FAULTS as error:
            raise self._no_answer(error, ask, progress) from None

    def _no_answer(self, error: Exception, ask: GatewayRequest, progress: RequestProgress) -> NoAnswer:
        return no_answer(
            error,
            ask.endpoint,
            sent=progress.sent,
            greeted=progress.greeted,
            certificate=self._shows_certificate,
        )

    def reply(
        self, ask: GatewayRequest, progress: RequestProgress
    ) -> AbstractAsyncContextManager[GatewayReply]:
        """The answer as it arrives; leaving the block ends the request. Raises `NoAnswer`."""
        return self._reply(ask, progress)

    @asynccontextmanager
    async def _reply(
        self, ask: GatewayRequest, progress: RequestProgress
    ) -> AsyncGenerator[GatewayReply, None]:
        if ask.endpoint.startswith("https:"):
            self._read_certificates()
        headers = dict(ask.headers) | ({"Authorization": ask.token} if ask.token else {})
        request = self._client.build_request(
            "GET" if ask.body is None else "POST",
            ask.endpoint + ask.path,
            content=ask.body,
            headers=headers,
            extensions={"trace": progress.trace},
        )
        request.stream = _Body(ask.body or b"")

        def translate(error: Exception) -> NoAnswer:
            return self._no_answer(error, ask, progress)

        try:
            response = await self._client.send(request, stream=True)
        except FAULTS as error:
            raise translate(error) from None
        except trio.Cancelled:
            progress.abandon()
            raise
        chunks = response.aiter_raw()
        try:
            yield GatewayReply(response.status_code, _Chunks(chunks, translate))
        finally:
            with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                await _unwind(chunks)
                await response.aclose()

    def _read_certificates(self) -> None:
        try:
            stamp = tuple((path, path.stat().st_mtime_ns) for path in self._files if path is not None)
            if stamp != self._loaded:
                self._load(*self._files)
                self._loaded = stamp
        except ssl.SSLError as error:
            raise NoAnswer(
                f"the certificate files cannot be used: {error.reason or error}", sent=False
            ) from None
        except OSError as error:
            raise NoAnswer(f"cannot read {error.filename}: {error.strerror}", sent=False) from None

    def _load(self, ca: Path | None, cert: Path | None, key: Path | None) -> None:
        if ca is None:
            self._context.load_default_certs()
        else:
            self._context.load_verify_locations(ca)
        if cert is not None:
            self._context.load_cert_chain(cert, key, password="")


class _Body(httpx.AsyncByteStream):
    """A request's body. httpx's own is an async generator, which a cancelled request leaves to the garbage
    collector."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._content)


class _Once:
    def __init__(self, content: bytes) -> None:
        self._parts = [content]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


class _Chunks:
    """The parts of a body, with httpx's errors raised as `NoAnswer`."""

    def __init__(self, chunks: AsyncIterator[bytes], translate: Callable[[Exception], NoAnswer]) -> None:
        self._chunks = chunks
        self._translate = translate

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except FAULTS as error:
            raise self._translate(error) from None


async def _unwind(chunks: AsyncIterator[bytes]) -> None:
    """End httpx's nested generators from the innermost one, by a cancelled read."""
    with trio.CancelScope() as over, suppress(*FAULTS):
        over.cancel()
        async for _ in chunks:
            pass
