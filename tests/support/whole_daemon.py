"""The whole daemon in the test's process, over a cluster whose events the test makes."""

from __future__ import annotations

import signal
import socket as stdlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from heliosd.cluster.subscribers import ItemQueue, Subscribers
from heliosd.config.addresses import Listen
from heliosd.config.model import (
    AuthConfig,
    Config,
    NodeConfig,
    ServerConfig,
    UserConfig,
    WebSocketConfig,
)
from heliosd.daemon import tree
from heliosd.daemon.main import prepare
from heliosd.protocol.events import Happened, PeerChanged

from .engines import FANOUT
from .ports import free_port
from .rest_server import PASSWORD_HASH, LoneBackend
from .wire import TEXT, Frame, Frames, upgrade


class Source(LoneBackend):
    """A cluster that stands still; its events are sent by the test."""

    def __init__(self) -> None:
        super().__init__()
        self._subscribers = Subscribers(256)
        self._serials = count(1)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()

    def events(self) -> AbstractAsyncContextManager[ItemQueue]:
        return self._subscribers.listener()

    def put(self, item: Happened) -> None:
        """Publish this event."""
        self._subscribers.emit(item)

    async def publish(self, events: int, fill: str = "") -> None:
        """Publish so many events, each for another peer."""
        for _ in range(events):
            peer = PeerChanged(
                event_type="healthy",
                peer_id=f"node-{next(self._serials)}",
                peer_address=f"127.0.0.1:7000{fill}",
            )
            self._subscribers.emit(Happened(peer))
            await self._subscribers.room()

    async def publish_at(self, rate: float, seconds: float) -> float:
        """Publish events at `rate` a second, evenly; returns the rate reached. A daemon that is slower makes this
        wait, as it makes a backend wait."""
        began = trio.current_time()
        published = 0
        while published < rate * seconds:
            due = int(min(seconds, trio.current_time() - began + 0.001) * rate) - published
            await self.publish(due)
            published += due
            await trio.sleep_until(began + published / rate)
        return published / (trio.current_time() - began)


@dataclass
class RunningDaemon:
    """A running daemon."""

    source: Source
    port: int
    token: str
    connections: list[Raw] = field(default_factory=list)
    """They are closed with the daemon."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        """As systemd stops it."""
        signal.raise_signal(signal.SIGTERM)

    async def connect(self, query: Mapping[str, str], *, receive_buffer: int | None = None) -> Raw:
        """A client on `/ws/cluster`."""
        socket = trio.socket.socket()
        if receive_buffer is not None:
            limit_receive_buffer(socket, receive_buffer)
        try:
            await socket.connect(("127.0.0.1", self.port))
        except BaseException:
            socket.close()
            raise
        raw = Raw(trio.SocketStream(socket))
        self.connections.append(raw)
        await raw.stream.send_all(upgrade(self.address, self.token, query))
        return raw


class Raw:
    """A client without a library: it reads only when the test calls `frame` or `text`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._frames = Frames()
        self._ready: list[Frame] = []

    async def frame(self) -> Frame | None:
        """The next frame; None: the connection has ended."""
        while not self._ready:
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._ready = list(self._frames.feed(data))
        return self._ready.pop(0)

    async def text(self) -> bytes | int | None:
        """The next message; or the code of a close frame; None: the connection has ended without one."""
        while (frame := await self.frame()) is not None:
            if frame.opcode == TEXT:
                return frame.payload
            if frame.close_code is not None:
                return frame.close_code
        return None


def limit_receive_buffer(socket: trio.socket.SocketType, receive_buffer: int) -> None:
    """Before it connects: it will hold little that has not been read."""
    socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, receive_buffer)
    # A window below one segment, which on the loopback is 64 KiB, moves by the kernel's timers only.
    socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_MAXSEG, 1000)


@asynccontextmanager
async def whole_daemon(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    certificate: tuple[Path, Path] | None = None,
    shutdown_grace: float = 5.0,
    **websocket: Any,
) -> AsyncIterator[RunningDaemon]:
    """Everything of a daemon but its cluster, on a free port, until the block ends. With a certificate and its key
    it speaks TLS."""
    source = Source()
    monkeypatch.setattr(tree, "backend_of", lambda *_: source)
    port = free_port()
    quiet = {"status_interval": 60.0, "latency_interval": 60.0, "uptime_interval": 60.0}
    tls_cert, tls_key = certificate or (None, None)
    config = Config(
        node=NodeConfig(data_dir=folder / "state"),
        server=ServerConfig(
            listen=(Listen("127.0.0.1", port),),
            tls_cert=tls_cert,
            tls_key=tls_key,
            shutdown_grace=shutdown_grace,
        ),
        websocket=WebSocketConfig(**(quiet | ({"fanout": FANOUT} if FANOUT else {}) | websocket)),
        auth=AuthConfig(users=(UserConfig(name="admin", password_hash=PASSWORD_HASH, roles=("admin",)),)),
    )
    prepared = prepare(folder / "config.toml", config)
    token = prepared.access.issue("admin", time.time(), None).token
    daemon = RunningDaemon(source, port, token)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prepared.run)
            await _listening(port)
            yield daemon
            nursery.cancel_scope.cancel()
    finally:
        prepared.store.close()
        for connection in daemon.connections:
            connection.stream.socket.close()


async def _listening(port: int) -> None:
    with trio.fail_after(60):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.sleep(0.01)
            else:
                return
