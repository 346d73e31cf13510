"""A start on a disk that takes no writes: heliosd listens, says so, and starts by itself once the disk takes them.

If it ended with an error, systemd's start limit would leave it down for good.
"""

from __future__ import annotations

import signal
import socket as stdlib
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import structlog
import trio
from msgspec import Struct

from heliosd.config.model import Config
from heliosd.errors import HeliosError, StoreFull
from heliosd.web.http import front
from heliosd.web.http.early_response import refuse
from heliosd.web.http.listeners import Address, open_listeners
from heliosd.web.http.request_head import RequestHead
from heliosd.web.http.websocket_upgrade import Upgrade
from heliosd.websocket.tls import ClientStream

from .certificate import ServerCertificate
from .ready_line import log_ready
from .signals import received_signals
from .systemd import Notifier, watchdog_interval

RETRY_SECONDS = 1.0
RETRY = (("Retry-After", "1"),)
NOT_STARTED = "Not started yet: the data directory cannot be written"

T = TypeVar("T")

log = structlog.get_logger("heliosd")


class Opened(Struct, Generic[T], frozen=True):
    """What was opened in the end, and where it listens."""

    value: T
    sockets: tuple[stdlib.socket, ...]
    """The listening sockets; connections may wait on them."""


async def open_when_possible(
    attempt: Callable[[], T],
    failure: StoreFull,
    config: Config,
    certificate: ServerCertificate | None,
    signals: list[int],
) -> Opened[T] | None:
    """Repeat `attempt`, in a thread, until it no longer raises `StoreFull`; the first time it was `failure`. Other
    `HeliosError`s rise. None: SIGTERM or SIGINT came first.

    `signals` are those that came before; in the end those that came since are there too.

    Meanwhile `/healthz` is 200, `/readyz` 503 with the reason, everything else 503. For systemd the service runs.
    """
    listeners = await open_listeners(*config.server.listen, reuse_port=config.server.reuse_port)
    sockets = tuple(
        stdlib.socket(fileno=listener.socket.dup().detach()) for listener in listeners
    )  # the front closes its own
    waiting = _Waiting(str(failure))
    result: T | HeliosError | None = None
    with received_signals(signals) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.collect, received)
            async with trio.open_nursery() as server:
                await server.start(
                    partial(
                        front.serve,
                        listeners,
                        rest=waiting.answer,
                        live=waiting.refuse_upgrade,
                        stop=waiting.over,
                        tls=None if certificate is None else lambda: certificate.context,
                        base_path=config.server.base_path,
                    )
                )
                log.error("the data directory cannot be written; waiting until it can", reason=str(failure))
                log_ready(listeners, config)
                result = await waiting.repeat(attempt)
                waiting.over.set()
                server.cancel_scope.deadline = trio.current_time() + config.server.shutdown_grace
            nursery.cancel_scope.cancel()
    signals[:0] = waiting.signals
    if result is not None and not isinstance(result, HeliosError):
        log.warning("the data directory can be written again")
        return Opened(result, sockets)
    for socket in sockets:
        socket.close()
    if result is not None:
        raise result
    return None


@dataclass(slots=True, eq=False)
class _Waiting:
    reason: str
    notifier: Notifier = field(default_factory=Notifier)
    signals: list[int] = field(default_factory=list)
    stop: trio.Event = field(default_factory=trio.Event)
    """SIGTERM or SIGINT came."""
    over: trio.Event = field(default_factory=trio.Event)

    async def repeat(self, attempt: Callable[[], T]) -> T | HeliosError | None:
        self.notifier.ready()
        while not self.stop.is_set():
            self.notifier.status(self.reason)
            if watchdog_interval() is not None:
                self.notifier.watchdog()
            with trio.move_on_after(RETRY_SECONDS):
                await self.stop.wait()
                return None
            try:
                return await trio.to_thread.run_sync(attempt)
            except StoreFull as full:
                self.reason = str(full)
            except HeliosError as error:
                return error
        return None

    async def collect(self, signals: AsyncIterable[int]) -> None:
        async for number in signals:
            self.signals.append(number)
            if number != signal.SIGHUP:
                self.stop.set()

    async def answer(self, head: RequestHead, _: bytes, stream: ClientStream, __: Address) -> None:
        path, body = head.target.partition(b"?")[0], head.method != "HEAD"
        if path == b"/healthz":
            await refuse(stream, 200, {"status": "ok"}, body=body)
        else:
            answer = {"ready": False, "reason": self.reason} if path == b"/readyz" else NOT_STARTED
            await refuse(stream, 503, answer, RETRY, body=body)

    async def refuse_upgrade(self, _: Upgrade, __: bytes, stream: ClientStream, ___: Address) -> None:
        await refuse(stream, 503, NOT_STARTED, RETRY)
