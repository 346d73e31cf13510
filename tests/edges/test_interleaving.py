"""Events, values, answers, pongs, pings and the close frame never mix on a connection: fuzzed over real sockets."""

from __future__ import annotations

import json
import random
import socket as stdlib
import ssl
from pathlib import Path

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import Extension, PerMessageDeflate

from heliosd.hub.client import HubClient
from heliosd.web.http import listeners
from tests.support.certificates import self_signed
from tests.support.engines import on_both_engines
from tests.support.sequence_rules import Follower, Ledger
from tests.support.whole_daemon import RunningDaemon, limit_receive_buffer, whole_daemon

MIX = {
    "status_interval": 0.01,
    "latency_interval": 0.01,
    "uptime_interval": 0.01,
    "ping_interval": 0.5,
    "messages_per_second": 100_000.0,
    "messages_burst": 100_000,
}


class Fuzzed:
    """A client that reads in random small pieces at random moments, and sends commands of all kinds meanwhile."""

    def __init__(
        self, house: RunningDaemon, rng: random.Random, *, deflate: bool, tls: ssl.SSLContext | None
    ) -> None:
        self.follower = Follower(f"client {rng.random():.3f}", Ledger())
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.asked: list[int] = []
        self.answered: list[int] = []
        self.close_code: int | None = None
        self.stopping = False
        self.wire = WSConnection(ConnectionType.CLIENT)
        self._house = house
        self._rng = rng
        self._extensions: list[Extension] = [PerMessageDeflate()] if deflate else []
        self._tls = tls
        self._text = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until the daemon closes. wsproto raises if a byte is out of place, and the rules if a message is."""
        socket = trio.socket.socket()
        limit_receive_buffer(socket, 8192)
        await socket.connect(("127.0.0.1", self._house.port))
        stream: trio.abc.Stream = trio.SocketStream(socket)
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_hostname="127.0.0.1", https_compatible=True)
        query = "&".join(f"{name}={value}" for name, value in self.follower.dial().items())
        request = Request(
            host=self._house.address,
            target=f"/ws/cluster?{query}",
            extensions=self._extensions,
            extra_headers=[(b"Authorization", f"Bearer {self._house.token}".encode())],
        )
        async with stream, trio.open_nursery() as nursery:
            await stream.send_all(self.wire.send(request))
            while self.follower.position is None:
                await self._receive(stream)
            task_status.started()
            nursery.start_soon(self._ask, stream)
            while self.close_code is None:
                await self._receive(stream)
                if self._rng.random() < 0.02:
                    await trio.sleep(self._rng.uniform(0.0, 0.05))
            nursery.cancel_scope.cancel()

    async def _receive(self, stream: trio.abc.Stream) -> None:
        data = await stream.receive_some(self._rng.choice([1, 2, 3, 17, 300, 4000]))
        assert data, "the connection ended without a close frame"
        self.wire.receive_data(bytes(data))
        for event in self.wire.events():
            match event:
                case TextMessage():
                    self._text += event.data
                    if event.message_finished:
                        self._take(self._text.encode())
                        self._text = ""
                case Pong():
                    self.pongs.append(bytes(event.payload))
                case CloseConnection():
                    self.close_code = int(event.code)
                case Ping() | AcceptConnection():
                    pass
                case _:
                    raise AssertionError(event)
        assert self.wire.state is not ConnectionState.CLOSED or self.close_code is not None

    def _take(self, raw: bytes) -> None:
        self.follower.take(raw)
        message = json.loads(raw)
        if "id" in message:
            self.answered.append(message["id"])

    async def _ask(self, stream: trio.abc.Stream) -> None:
        for number in range(1_000_000):
            # After a send that failed Trio's TLS stream reads no more, not even what has come: a slow client is
            # silent when the daemon may have closed.
            if self.close_code is not None or (self._tls is not None and self.stopping):
                return
            match self._rng.randrange(4):
                case 0:
                    self.pings.append(str(number).encode() * self._rng.randrange(1, 15))
                    wire = self.wire.send(Ping(payload=self.pings[-1]))
                case 1:
                    wire = self._say(number, '{"type":"ping","id":%d,"data":"' + "é" * 300 + '"}')
                case 2:
                    wire = self._say(number, '{"type":"nonsense","id":%d}')
                case _:
                    wire = self._say(number, '{"type":"status","id":%d}')
            try:
                await stream.send_all(wire)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            await trio.sleep(self._rng.uniform(0.0, 0.01))

    def _say(self, number: int, text: str) -> bytes:
        self.asked.append(number)
        return self.wire.send(TextMessage(data=text % number))

    def check(self) -> None:
        """Answers are in order, each to one command; of its pings only overtaken ones lack an answer."""
        assert len(set(self.answered)) == len(self.answered)
        assert set(self.answered) <= set(self.asked)
        remaining = iter(self.pings)
        assert all(pong in remaining for pong in self.pongs), "a pong without its ping, or out of order"
        assert self.close_code == 1001
        assert self.pongs
        assert self.answered


def make_writes_partial(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small socket buffers, so that frames are written in pieces; returns the number of frames so far of which
    something was left over, as the length of a list."""
    rests: list[int] = []

    def cramp(socket: trio.socket.SocketType) -> None:
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, 2048)

    fall_behind = HubClient.fall_behind

    def watched(client: HubClient) -> None:
        rests.append(client.serial)
        fall_behind(client)

    monkeypatch.setattr(listeners, "prepare", cramp)
    monkeypatch.setattr(HubClient, "fall_behind", watched)
    return rests


async def fuzz(
    house: RunningDaemon, *, seed: int, clients: int, seconds: float, tls: ssl.SSLContext | None
) -> None:
    rng = random.Random(seed)
    fuzzed = [
        Fuzzed(house, random.Random(rng.random()), deflate=number % 2 == 1, tls=tls)
        for number in range(clients)
    ]
    async with trio.open_nursery() as nursery:
        for client in fuzzed:
            await nursery.start(client.run)
        await house.source.publish_at(200.0, seconds)
        for client in fuzzed:
            client.stopping = True
        house.stop()
    for client in fuzzed:
        client.check()
        assert client.follower.seen.deliveries > 0


@on_both_engines
@pytest.mark.parametrize("over_tls", [False, True])
async def test_no_two_frames_ever_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_tls: bool, fanout: str
) -> None:
    rests = make_writes_partial(monkeypatch)
    certificate = self_signed(tmp_path) if over_tls else None
    tls = ssl.create_default_context(cafile=str(certificate[0])) if certificate is not None else None
    with trio.fail_after(60):
        async with whole_daemon(
            tmp_path, monkeypatch, certificate=certificate, fanout=fanout, **MIX
        ) as house:
            await fuzz(house, seed=over_tls, clients=4, seconds=1.0, tls=tls)
    assert rests, "every frame was written in one piece: nothing was tried"


@pytest.mark.slow
@on_both_engines
@pytest.mark.parametrize("seed", range(50))
async def test_in_50_long_runs_no_two_frames_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, fanout: str
) -> None:
    rests = make_writes_partial(monkeypatch)
    certificate = self_signed(tmp_path) if seed % 2 else None
    tls = ssl.create_default_context(cafile=str(certificate[0])) if certificate is not None else None
    with trio.fail_after(120):
        async with whole_daemon(
            tmp_path, monkeypatch, certificate=certificate, fanout=fanout, **MIX
        ) as house:
            await fuzz(house, seed=seed, clients=8, seconds=3.0, tls=tls)
    assert rests
