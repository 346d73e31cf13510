"""One request served by Hypercorn and Quart-Trio, kept apart from the rest of the process.

`hypercorn.trio.tcp_server.TCPServer` (0.18.0) is not public API and has faults that reach beyond one connection.
Instead of a socket it gets a stream of ours that does six things:

1. It sends in pieces, each with its own deadline, inside Hypercorn's shield. On expiry it cuts the connection and
   raises BrokenResourceError, the one error for which Hypercorn logs no traceback.
2. It delivers the head and the bytes of the body and discards all that follows: with bytes behind a running request
   Hypercorn's reader would stop, and a disconnect would never be seen.
3. It puts a deadline on a body that is due.
4. It half-closes without a checkpoint: Hypercorn closes in a scope that is cancelled, and would be stopped there.
5. Once closed, it cancels its task one second later, so that a peer has time to take the response.
6. Over TLS it has the three attributes by which Hypercorn recognizes TLS.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, LifespanState

from heliosd.websocket.tls import ClientStream, TLSStream

from .early_response import LINGER_SECONDS
from .request_head import RequestHead

PIECE_BYTES = 64 * 1024
MAX_DISCARDED_BYTES = 1024 * 1024
LIFESPAN_SECONDS = 5.0

log = structlog.get_logger("heliosd.web")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long the peer of an HTTP request may take, in seconds."""

    piece_seconds: float = 10.0
    """To take 64 KiB of a response."""
    body_seconds: float = 30.0
    """To send the whole body, from the head on."""
    linger_seconds: float = LINGER_SECONDS
    """To close after the response."""


@dataclass(frozen=True, slots=True)
class HypercornParts:
    """Shared by all requests to one app."""

    app: ASGIWrapper
    config: Config
    context: WorkerContext
    state: LifespanState
    deadlines: Deadlines = field(default_factory=Deadlines)


@asynccontextmanager
async def hypercorn_parts(
    app: ASGIFramework, deadlines: Deadlines | None = None
) -> AsyncIterator[HypercornParts]:
    """Runs the app's lifespan: started inside the block, shut down after it. Raises what its startup raises, in an
    exception group."""
    config = Config()
    config.keep_alive_max_requests = 1
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("heliosd.web")
    config.startup_timeout = config.shutdown_timeout = LIFESPAN_SECONDS
    wrapped = ASGIWrapper(app)
    state: LifespanState = {}
    lifespan = Lifespan(wrapped, config, state)
    context = WorkerContext(None)
    async with trio.open_nursery() as nursery:
        await nursery.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        if not lifespan.supported:
            raise RuntimeError("the app did not start")
        if lifespan.shutdown.is_set():  # it failed, and its error is on the way to this nursery
            await trio.sleep_forever()
        try:
            yield HypercornParts(wrapped, config, context, state, deadlines or Deadlines())
        finally:
            with trio.CancelScope(shield=True):  # ends after shutdown_timeout
                await context.terminated.set()
                # If the whole daemon was cancelled, the lifespan's own task is gone already.
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await lifespan.wait_for_shutdown()


class HypercornStream:
    """The stream that Hypercorn sees: a connection at the point where one request's head has been read.

    Closing it sets a deadline on `scope`, in which the request is served.
    """

    def __init__(
        self,
        stream: ClientStream,
        head: RequestHead,
        trailing: bytes,
        deadlines: Deadlines,
        scope: trio.CancelScope,
    ) -> None:
        self.socket = stream.socket
        self._stream = stream
        self._deadlines = deadlines
        self._scope = scope
        self._ready = head.raw + trailing[: head.body_bytes]
        self._due = max(0, head.body_bytes - len(trailing))
        self._body_deadline = trio.current_time() + deadlines.body_seconds
        self._discarded = max(0, len(trailing) - head.body_bytes)
        self._sending: trio.CancelScope | None = None
        self._closed = False
        self._at_end = False

    async def send_all(self, data: bytes) -> None:
        with memoryview(data) as view:
            for start in range(0, len(view), PIECE_BYTES):
                await self._send_piece(view[start : start + PIECE_BYTES])

    async def _send_piece(self, piece: memoryview) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this response is over")
        with trio.move_on_after(self._deadlines.piece_seconds) as self._sending:
            await self._stream.send_all(piece)
        if self._sending.cancelled_caught:
            self.abort()
            raise trio.BrokenResourceError("the peer does not read")
        self._sending = None

    async def receive_some(self, max_bytes: int) -> bytes:
        """The head, then the body, then the end once the peer has left."""
        if self._ready:
            await trio.lowlevel.checkpoint()
            ready, self._ready = self._ready[:max_bytes], self._ready[max_bytes:]
            return ready
        if self._due:
            with trio.move_on_at(self._body_deadline) as limit:
                data = await self._stream.receive_some(max_bytes)
            if limit.cancelled_caught:
                self.abort()
                raise trio.BrokenResourceError("the body did not come")
            body = data[: self._due]
            self._due -= len(body)
            self._discarded += len(data) - len(body)
            self._at_end = not data
            return body
        await self.discard_input()
        return b""

    async def discard_input(self) -> None:
        """Discards bytes until the peer has ended its side, or has sent more than `MAX_DISCARDED_BYTES`."""
        while not self._at_end and self._discarded <= MAX_DISCARDED_BYTES:
            data = await self._stream.receive_some(PIECE_BYTES)
            self._discarded += len(data)
            self._at_end = not data
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        self._half_close()

    async def aclose(self) -> None:
        """The front closes the connection once the task of the request has ended."""
        self._half_close()

    def _half_close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            self._stream.half_close()
        last = trio.current_time() + self._deadlines.linger_seconds
        self._scope.deadline = min(self._scope.deadline, last)
        if self._sending is not None:  # a send inside Hypercorn's shield, which the scope does not reach
            self._sending.deadline = min(self._sending.deadline, last)

    def abort(self) -> None:
        self._stream.abort()


class HypercornTLSStream(HypercornStream):
    """Over TLS. The handshake is done already."""

    def __init__(
        self,
        stream: TLSStream,
        head: RequestHead,
        trailing: bytes,
        deadlines: Deadlines,
        scope: trio.CancelScope,
    ) -> None:
        super().__init__(stream, head, trailing, deadlines, scope)
        self.transport_stream = self  # Hypercorn reads its socket
        self._alpn = stream.selected_alpn_protocol()

    async def do_handshake(self) -> None:
        await trio.lowlevel.checkpoint()

    def selected_alpn_protocol(self) -> str | None:
        return self._alpn


async def serve_request(
    parts: HypercornParts, head: RequestHead, trailing: bytes, stream: ClientStream
) -> None:
    """Serves one request, and returns when the peer has its response or is gone. The caller closes `stream`.

    An error of the app or of Hypercorn is logged, not raised. Cancelling cuts the connection.
    """
    scope = trio.CancelScope()
    adapted: HypercornStream
    if isinstance(stream, TLSStream):
        adapted = HypercornTLSStream(stream, head, trailing, parts.deadlines, scope)
    else:
        adapted = HypercornStream(stream, head, trailing, parts.deadlines, scope)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_abort_when_cancelled, adapted, done := trio.Event())
        with scope:
            await _run(parts, adapted)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await adapted.discard_input()
        done.set()


async def _run(parts: HypercornParts, adapted: HypercornStream) -> None:
    try:
        await TCPServer(
            parts.app,
            parts.config,
            parts.context,
            parts.state.copy(),
            cast("trio.SSLStream[trio.SocketStream]", adapted),
        )
    except* Exception:
        log.exception("request failed")


async def _abort_when_cancelled(adapted: HypercornStream, done: trio.Event) -> None:
    # Cancelling does not reach a send inside Hypercorn's shield; closing its socket does.
    try:
        await done.wait()
    except trio.Cancelled:
        adapted.abort()
        raise
