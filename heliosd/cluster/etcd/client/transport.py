"""One HTTP request to one endpoint of etcd: TLS, limits, and why there was no answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from msgspec import Struct

from heliosd.config.model import EtcdConfig

from .answers import ArrivingAnswer
from .certificates import ClientCertificates
from .no_answer import HttpFault, NoAnswer, no_answer
from .progress import RequestProgress
from .short_requests import HeldConnection, ShortRequests

MAX_ANSWER_BYTES = 64 * 1024 * 1024
FIELDS = {"User-Agent": "heliosd", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class GatewayRequest:
    """A request: POST if it has a body, else GET. Its `repr` shows neither body nor token."""

    endpoint: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = ()


class GatewayReply(Struct, frozen=True):
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

    Certificates are read for a new connection, when their files have changed since the last one. While they could
    never be used, each request that needs them raises `NoAnswer`.
    """

    def __init__(self, config: EtcdConfig) -> None:
        self._certificates = ClientCertificates(config)
        self._short = ShortRequests(self._certificates.context)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._short.close()

    async def answer(self, ask: GatewayRequest, progress: RequestProgress) -> tuple[int, bytes]:
        """Status and body. Raises `NoAnswer`. No deadline of its own except for connecting."""
        headers = _fields(ask)
        try:
            return await self._short.exchange(
                ask.endpoint, ask.path, ask.body, headers, progress, MAX_ANSWER_BYTES
            )
        except HttpFault as error:
            raise self._no_answer(error, ask, progress) from None

    def answers_the_same(self, ask: GatewayRequest, last: bytes) -> Awaitable[bool]:
        """Whether it is answered by this body again, over a connection that is open. False also after a fault.

        Not `async`, as those who call it: an idle heliosd does this more often than all else, and each level costs.
        """
        return self._short.answers_the_same(ask.endpoint, ask.path, ask.body or b"", _fields(ask), last)

    @asynccontextmanager
    async def held(
        self, ask: GatewayRequest, progress: RequestProgress
    ) -> AsyncGenerator[HeldConnection, None]:
        """The answer to a GET, over a connection of its own; see `HeldConnection`. Raises `NoAnswer`."""
        headers = _fields(ask)
        try:
            async with self._short.held(ask.endpoint, ask.path, headers, progress, MAX_ANSWER_BYTES) as held:
                yield held
        except HttpFault as error:
            raise self._no_answer(error, ask, progress) from None

    def _no_answer(self, error: HttpFault, ask: GatewayRequest, progress: RequestProgress) -> NoAnswer:
        return no_answer(
            error,
            ask.endpoint,
            sent=progress.sent,
            greeted=progress.greeted,
            certificate=self._certificates.shown,
        )

    @asynccontextmanager
    async def reply(
        self, ask: GatewayRequest, progress: RequestProgress
    ) -> AsyncGenerator[GatewayReply, None]:
        """The answer as it arrives; leaving the block ends the request. Raises `NoAnswer`."""
        headers = _fields(ask)

        def translate(error: HttpFault) -> NoAnswer:
            return self._no_answer(error, ask, progress)

        try:
            async with self._short.arriving(ask.endpoint, ask.path, ask.body, headers, progress) as answer:
                yield GatewayReply(answer.status, _Chunks(answer, translate))
        except HttpFault as error:
            raise translate(error) from None


def _fields(ask: GatewayRequest) -> list[tuple[str, str]]:
    return [*FIELDS.items(), *ask.headers, *([("Authorization", ask.token)] if ask.token else [])]


class _Chunks:
    """The parts of a body, with faults raised as `NoAnswer`."""

    def __init__(self, answer: ArrivingAnswer, translate: Callable[[HttpFault], NoAnswer]) -> None:
        self._answer = answer
        self._translate = translate

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            part = await self._answer.part()
        except HttpFault as error:
            raise self._translate(error) from None
        if not part:
            raise StopAsyncIteration
        return part
