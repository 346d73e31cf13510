"""A daemon for tests of the Python client: the test writes what it answers and sends."""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs

import trio

from heliosd.client.client import Client, Item
from heliosd.web.http.early_response import linger, refuse
from heliosd.web.http.listeners import Address
from heliosd.web.http.request_head import RequestHead
from heliosd.web.http.websocket_upgrade import Upgrade
from heliosd.websocket.connection import CloseReceived, Inbound, TextReceived, accept_response
from heliosd.websocket.frames import close_frame, text_frame
from heliosd.websocket.tls import ClientStream

from .deadlines import SECONDS
from .front_server import Front, open_front

TOKEN = "the.first.token"
NOW = "2026-11-23T05:19:10.000000Z"


class Chance(random.Random):
    """Always the shortest wait."""

    def uniform(self, a: float, b: float) -> float:
        del b
        return a / 10


class Visitor:
    """One client on `/ws/cluster`, seen from the daemon."""

    def __init__(self, upgrade: Upgrade, stream: ClientStream, inbound: Inbound) -> None:
        self.query = {name: values[0] for name, values in parse_qs(upgrade.query).items()}
        self.authorization = "".join(upgrade.authorization)
        self.stream = stream
        self._inbound = inbound

    async def say(self, name: str, data: object = None, seq: int | None = None) -> None:
        message: dict[str, object] = {"type": name, "timestamp": NOW}
        if seq is not None:
            message["seq"] = seq
        if data is not None:
            message["data"] = data
        await self.stream.send_all(text_frame(json.dumps(message).encode()))

    async def welcome(
        self, seq: int, *, replayed: int = 0, reason: str | None = None, epoch: str = "A"
    ) -> None:
        data: dict[str, object] = {"client_id": "c", "epoch": epoch, "seq": seq, "oldest_seq": 1}
        data |= {"recovered": reason is None, "reason": reason, "replayed": replayed, "expires_at": NOW}
        await self.say("welcome", data)

    async def begin(self, seq: int) -> None:
        """Nothing was missed up to `seq`."""
        await self.welcome(seq)
        await self.say("status", {"as_of_seq": seq})

    async def events(self, first: int, last: int) -> None:
        for seq in range(first, last + 1):
            await self.say("peer_change", {"peer_id": f"node-{seq}"}, seq)

    async def close(self, code: int, reason: str = "") -> None:
        await self.stream.send_all(close_frame(code, reason))

    async def hear(self) -> dict[str, Any] | None:
        """The next message of the client; None: it has left."""
        while data := await self.stream.receive_some(4096):
            for received in self._inbound.receive(data):
                if isinstance(received, TextReceived):
                    return dict(json.loads(received.text))
                if isinstance(received, CloseReceived):
                    await self.close(received.code)
                    return None
        return None


Visit = Callable[[Visitor], Awaitable[None]]
Answer = tuple[int, object]


class Daemon:
    """Takes visits one after the other; the last one in the list serves all that come then."""

    def __init__(self) -> None:
        self.connection_log: list[Visit | tuple[int, str, dict[str, str]]] = []
        self.visitors: list[Visitor] = []
        self.answers: dict[str, list[Answer]] = {}
        """What each path answers, in turn; the last one stays."""
        self.asked: list[tuple[str, str, Any]] = []
        """Every request: its path with the query, its Authorization, its body."""
        self.port = 0

    def asked_for(self, path: str) -> list[tuple[str, str, Any]]:
        return [each for each in self.asked if each[0].partition("?")[0] == path]

    async def serve_websocket(
        self, upgrade: Upgrade, trailing: bytes, stream: ClientStream, peer: Address
    ) -> None:
        del peer
        visit = self.connection_log[0] if len(self.connection_log) == 1 else self.connection_log.pop(0)
        inbound = Inbound(65536, deflate_agreed=False)
        visitor = Visitor(upgrade, stream, inbound)
        self.visitors.append(visitor)
        if isinstance(visit, tuple):
            status, error, headers = visit
            await refuse(stream, status, error, headers.items())
            return
        assert trailing == b""
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(accept_response(upgrade.key, subprotocol=None, extensions=None))
            await visit(visitor)
        await linger(stream)

    async def rest(self, head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        del peer
        body = trailing
        length = int(head.header(b"content-length") or 0)
        while len(body) < length:
            body += await stream.receive_some(4096)
        authorization = (head.header(b"authorization") or b"").decode()
        target = head.target.decode() if isinstance(head.target, bytes) else head.target
        self.asked.append((target, authorization, json.loads(body) if body else None))
        answers = self.answers.get(target.partition("?")[0], [(404, {"error": "Not found"})])
        status, content = answers[0] if len(answers) == 1 else answers.pop(0)
        payload = json.dumps(content).encode()
        lines = f"HTTP/1.1 {status} X\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        with suppress(OSError, trio.BrokenResourceError):
            await stream.send_all(lines.encode() + payload)
        await linger(stream)


@asynccontextmanager
async def daemon_of(
    *connection_log: Visit | tuple[int, str, dict[str, str]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Daemon]:
    daemon = Daemon()
    daemon.connection_log += connection_log
    with trio.fail_after(SECONDS):
        front: Front
        async with open_front(rest=daemon.rest, live=daemon.serve_websocket, tls=tls) as front:
            daemon.port = front.port
            yield daemon


async def take(client: Client, number: int) -> list[Item]:
    """The next items."""
    return [await anext(client) for _ in range(number)]


async def events_of(client: Client, number: int) -> list[int]:
    """The numbers of the next events; everything else is passed over."""
    found: list[int] = []
    async for item in client:
        seq = getattr(item, "seq", None)
        if seq is not None:
            found.append(seq)
        if len(found) == number:
            break
    return found


async def stay(visitor: Visitor) -> None:
    """Let the client be the one to leave."""
    while await visitor.hear() is not None:
        pass
