"""The client's WebSocket: trio-websocket on a connection that detects a lost peer.

What trio-websocket leaves to its user, and this module adds:
- If a connection ends before the upgrade is answered, the handshake would wait for ever.
- There is no deadline for a lost peer. Here the client pings, and after `SILENCE_SECONDS` without data the
  connection counts as lost. While the consumer does not read, the socket is not read and silence is not counted:
  the messages wait at the daemon.
- After a message that is too large the reader would wait for the peer; here it is cancelled.
"""

from __future__ import annotations

import socket as stdlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast

import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from heliosd.errors import HeliosError, NotUnderstood

from .http_api import ServerURL, error_text, words_of
from .reconnect import ConnectionLost, TokenRefused, after_close, after_refusal

CONNECT_SECONDS = 10.0
PING_SECONDS = 15.0
SILENCE_SECONDS = 40.0
"""If a read waits so long, the connection counts as lost."""
CLOSE_SECONDS = 1.0
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest is `status` with 1,000 metrics, whose help and labels may be long."""
RECEIVE_BUFFER_BYTES = 256 * 1024
"""The kernel's receive buffer. By default it grows to megabytes of messages that get old there, while in the
daemon's queue a newer value replaces an older one."""
_RECEIVE_AT_ONCE = 64 * 1024

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Socket:
    """An open connection."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket

    async def receive(self) -> str:
        """The next text message. Raises `ConnectionLost` or `FollowingEnded` when the connection has ended."""
        try:
            text = await self._websocket.get_message()
        except ConnectionClosed as closed:
            reason = closed.reason
            raise after_close(
                1006 if reason is None else reason.code, None if reason is None else reason.reason
            ) from None
        if not isinstance(text, str):
            raise NotUnderstood("the daemon sent a binary message")
        return text

    async def send(self, text: str) -> None:
        """Send one text message. Does nothing on a connection that has ended; `receive` raises."""
        with suppress(ConnectionClosed):
            await self._websocket.send_message(text)

    async def keep_alive(self) -> None:
        """Ping, so that a living daemon answers regularly. Runs until cancelled or closed."""
        with suppress(ConnectionClosed):
            while True:
                with trio.move_on_after(PING_SECONDS):
                    await self._websocket.ping()
                await trio.sleep(PING_SECONDS)


@asynccontextmanager
async def open_socket(
    server: ServerURL, resource: str, token: str, ssl_context: ssl.SSLContext | None
) -> AsyncIterator[Socket]:
    """A connection to `resource` for as long as the block lasts.

    Raises `ConnectionLost`, `TokenRefused` or `FollowingEnded` if it cannot be opened or has ended.
    """
    with sole_error():
        line = await _dial(server, ssl_context)
        broken = left = False
        try:
            async with trio.open_nursery() as nursery:
                reader = _ShieldedNursery(nursery)
                try:
                    websocket = await _upgrade(reader, line, server, resource, token)
                    opened = Socket(websocket)
                    nursery.start_soon(opened.keep_alive)
                    try:
                        yield opened
                        left = True
                    finally:
                        with trio.move_on_after(CLOSE_SECONDS, shield=True):
                            await websocket.aclose()
                finally:
                    reader.scope.cancel()
                    nursery.cancel_scope.cancel()
        except* ConnectionRejected as rejected:
            raise _refused(rejected, token) from None
        except* (ConnectionClosed, h11.ProtocolError, ProtocolError):
            # The reader raises these for an answer that is not HTTP, for a fault on a lost connection, and for a
            # ping after its own close frame, which wsproto cannot answer.
            broken = True
        finally:
            line.abort()
        if broken and not left:
            raise ConnectionLost("the connection broke")


async def _dial(server: ServerURL, ssl_context: ssl.SSLContext | None) -> _SocketStream:
    try:
        with trio.fail_after(CONNECT_SECONDS):
            plain = await trio.open_tcp_stream(server.host, server.port)
            plain.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if ssl_context is None:
                return _SocketStream(plain, plain)
            secure = trio.SSLStream(plain, ssl_context, server_hostname=server.host, https_compatible=True)
            try:
                await secure.do_handshake()
            except BaseException:
                plain.socket.close()
                raise
            return _SocketStream(secure, plain)
    except trio.TooSlowError:
        raise ConnectionLost(f"{server.netloc} does not answer") from None
    except (OSError, trio.BrokenResourceError) as error:
        raise ConnectionLost(f"cannot connect to {server.netloc}: {words_of(error)}") from error


async def _upgrade(
    reader: _ShieldedNursery, line: _SocketStream, server: ServerURL, resource: str, token: str
) -> WebSocketConnection:
    with trio.move_on_after(CONNECT_SECONDS) as opening:
        line.on_end = opening.cancel
        return await wrap_client_stream(
            cast(Any, reader),
            cast(Any, line),  # its documentation allows any stream, its annotation two kinds
            server.netloc,
            resource,
            extra_headers=[(b"Authorization", f"Bearer {token}".encode("ascii"))],
            max_message_size=MAX_MESSAGE_BYTES,
            receive_buffer_size=_RECEIVE_AT_ONCE,
        )
    raise ConnectionLost(f"{server.netloc} did not answer the upgrade")


def _refused(group: BaseExceptionGroup[ConnectionRejected], token: str) -> ConnectionLost | TokenRefused:
    rejection = group.exceptions[0]
    assert isinstance(rejection, ConnectionRejected)
    said = error_text(rejection.body or b"", rejection.status_code)
    if rejection.status_code == 401:
        return TokenRefused(said, token)
    later = next(
        (value.decode("latin-1") for name, value in rejection.headers if name == b"retry-after"), None
    )
    return after_refusal(rejection.status_code, said, later)


class _ShieldedNursery:
    """A nursery for the reader of a WebSocket: the reader runs until its own scope is cancelled, so that it still
    receives the answer to a close frame."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.scope = trio.CancelScope(shield=True)
        self._nursery = nursery

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, task)

    async def _run(self, task: Callable[[], Awaitable[None]]) -> None:
        with self.scope:
            await task()


class _SocketStream(trio.abc.Stream):
    """The stream under a WebSocket: calls `on_end` when it has ended, and ends after `SILENCE_SECONDS`."""

    def __init__(self, stream: trio.abc.Stream, plain: trio.SocketStream) -> None:
        self.on_end: Callable[[], None] = lambda: None
        self._stream = stream
        self._plain = plain

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        with self._ending(), trio.fail_after(SILENCE_SECONDS):
            data = await self._stream.receive_some(max_bytes)
        if not data:
            self.on_end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._ending(), trio.fail_after(SILENCE_SECONDS):
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        """Close the socket at once, without a close frame."""
        self._plain.socket.close()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except trio.TooSlowError:
            self.on_end()
            raise trio.BrokenResourceError("nothing was received for too long") from None
        except _GONE:
            self.on_end()
            raise


@contextmanager
def sole_error() -> Iterator[None]:
    """Raise one error in place of the exception group that a nursery raises: the only one, or the first of several
    that are all `HeliosError`, as when several requests to one daemon fail at once.

    Ctrl-C may interrupt any task, and those that wait for it fail then: `KeyboardInterrupt` stands for them all.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        alone: BaseException = group
        if group.subgroup(KeyboardInterrupt):
            alone = KeyboardInterrupt()
        else:
            every_is_ours = group.split(HeliosError)[1] is None
            while isinstance(alone, BaseExceptionGroup):
                if len(alone.exceptions) != 1 and not every_is_ours:
                    raise
                alone = alone.exceptions[0]
    else:
        return
    # Out of the handler, so that the group does not become its context.
    raise alone
