"""The daemon under attack: raw requests to it, and the account of everything that it answered."""

from __future__ import annotations

import json
import re
import socket as stdlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import trio

from tests.support.wire import CLOSE, TEXT, Frame, Frames, masked, upgrade

ANSWER_SECONDS = 20.0
BY_DESIGN = {503, 507}
"""503 with Retry-After: more than can be served now. 507: a registration beyond `websocket.max_status_bytes`."""
_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is 0 where the connection ended without an answer."""

    status: int
    head: str
    body: bytes

    @property
    def retry_after(self) -> float | None:
        found = re.search(r"(?im)^retry-after: (\d+)", self.head)
        return None if found is None else float(found[1])

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Target:
    """One daemon. Every byte that it sends through here is searched for `secrets`; statuses are counted."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    signing_key: bytes | None = field(default=None, repr=False)
    """Where it is known, forged tokens are signed rightly."""
    token: str = field(default="", repr=False)
    other_users: tuple[str, ...] = ()
    """With the same password, and with other rights."""
    secrets: set[bytes] = field(default_factory=set, repr=False)
    statuses: Counter[int] = field(default_factory=Counter)
    closes: Counter[int | None] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def expect(self, what: str, answer: Answer, wanted: Iterable[int]) -> None:
        """The answer's status is one of those. 0 stands for a connection that ended without an answer."""
        if answer.status not in set(wanted):
            self.fault(f"{what}: {answer.status} {answer.body[:120]!r}, not {sorted(wanted)}")

    def heard(self, data: bytes, where: str) -> None:
        for secret in self.secrets:
            if secret in data:
                self.fault(f"{where}: a secret is in what came back")

    @asynccontextmanager
    async def connected(
        self, source: str = "", receive_buffer: int | None = None
    ) -> AsyncIterator[trio.SocketStream]:
        """A connection, from another address of the loopback if one is given."""
        socket = trio.socket.socket()
        try:
            if receive_buffer is not None:
                socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, receive_buffer)
            if source:
                await socket.bind((source, 0))
            await socket.connect((self.host, self.port))
            yield trio.SocketStream(socket)
        finally:
            socket.close()

    async def send(self, request: bytes, *, what: str = "", source: str = "") -> Answer:
        """Sends these bytes, and reads until the daemon closes."""
        received = bytearray()
        with trio.move_on_after(ANSWER_SECONDS) as limit, suppress(*_GONE):
            async with self.connected(source) as stream, trio.open_nursery() as nursery:

                async def write() -> None:
                    with suppress(*_GONE):
                        await stream.send_all(request)

                nursery.start_soon(write)
                with suppress(*_GONE):
                    while piece := await stream.receive_some(65_536):
                        received += piece
                nursery.cancel_scope.cancel()
        if limit.cancelled_caught and not received:
            self.fault(f"{what or request[:60]!r}: no answer in {ANSWER_SECONDS:g} s")
        return self._noted(bytes(received), what or repr(request[:60]))

    def _noted(self, received: bytes, what: str) -> Answer:
        head, _, body = received.partition(b"\r\n\r\n")
        line = re.match(rb"HTTP/1\.1 (\d{3})\b", head)
        if received and line is None:
            self.fault(f"{what}: no HTTP came back: {received[:60]!r}")
        answer = Answer(int(line[1]) if line else 0, head.decode("latin-1"), body)
        self.statuses[answer.status] += 1
        if answer.status >= 500 and (
            answer.status not in BY_DESIGN or (answer.status == 503 and answer.retry_after is None)
        ):
            self.fault(f"{what}: {answer.status} {body[:200]!r}")
        self.heard(received, what)
        return answer

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        *,
        token: str | None = "",
        source: str = "",
    ) -> Answer:
        """One well-formed request. `token=""` is the user's own, None is none."""
        bearer = self.token if token == "" else token
        fields = {"Host": self.address, "Connection": "close", **headers}
        if bearer is not None and "Authorization" not in fields:
            fields["Authorization"] = f"Bearer {bearer}"
        if body is not None:
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        request = "\r\n".join((*lines, "", "")).encode("utf-8", "surrogatepass") + (body or b"")
        return await self.send(request, what=f"{method} {path[:80]}", source=source)

    async def log_in(self, password: str | None = None, *, name: str = "", source: str = "") -> Answer:
        body = {"username": name or self.user, "password": self.password if password is None else password}
        secrets, self.secrets = self.secrets, self.secrets - {self.token.encode()}
        try:
            return await self.ask(
                "POST", "/api/auth/login", json.dumps(body).encode(), token=None, source=source
            )
        finally:
            self.secrets = secrets

    async def new_token(self, source: str = "", name: str = "") -> str:
        """As a client logs in that obeys Retry-After."""
        while (answer := await self.log_in(name=name, source=source)).status == 503:  # noqa: ASYNC110, as it is asked to
            await trio.sleep(answer.retry_after or 1.0)
        return str(answer.json()["token"])

    @asynccontextmanager
    async def client(
        self, *, deflate: bool = False, receive_buffer: int | None = None
    ) -> AsyncIterator[SocketClient]:
        """A WebSocket client with the user's token. It reads only when asked to."""
        async with self.connected(receive_buffer=receive_buffer) as stream:
            await stream.send_all(upgrade(self.address, self.token, deflate=deflate))
            yield SocketClient(self, stream)


class SocketClient:
    """One WebSocket, byte by byte."""

    def __init__(self, target: Target, stream: trio.SocketStream) -> None:
        self._target = target
        self._stream = stream
        self._frames = Frames()

    async def send(self, data: bytes) -> None:
        """What it no longer takes is dropped."""
        with suppress(*_GONE):
            await self._stream.send_all(data)

    async def frames(self) -> AsyncIterator[Frame]:
        """As they come, until the connection ends."""
        while True:
            try:
                data = await self._stream.receive_some(65_536)
            except _GONE:
                return
            if not data:
                return
            self._target.heard(data, "a WebSocket")
            for frame in self._frames.feed(data):
                yield frame

    async def close_code(self) -> int | None:
        """The code that the daemon closes with; None: the connection ended without one."""
        code: int | None = None
        with trio.move_on_after(ANSWER_SECONDS) as limit:
            async for frame in self.frames():
                if frame.opcode == CLOSE:
                    code = frame.close_code
        if limit.cancelled_caught:
            self._target.fault("a WebSocket was not closed")
        self._target.closes[code] += 1
        return code

    async def answer_to(self, text: str) -> dict[str, Any]:
        """The answer to a message of this client; {} if the connection ends instead."""
        await self.send(masked(TEXT, text.encode()))
        with trio.move_on_after(ANSWER_SECONDS):
            async for frame in self.frames():
                if frame.opcode == TEXT:
                    message = frame.message()
                    if message["type"] in {"error", "pong", "subscribed"}:
                        return message
        return {}
