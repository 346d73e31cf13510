"""Streaming answers of etcd: a watch, and a snapshot of its database."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self, TypeVar

import trio

from .calls import EndpointCalls, Headers
from .errors import EtcdDenied, EtcdError, EtcdTokenEnded, EtcdUnavailable
from .no_answer import NoAnswer
from .responses import NotEtcd, WatchBatch, read_snapshot_line, read_watch_line
from .transport import GatewayReply

STALL_SECONDS = 5.0
"""The longest wait for the next part of a snapshot."""
DIGEST_BYTES = 32
YOUNG_TOKEN_SECONDS = 2.0
"""A token that is not older has not ended: what it is denied is denied."""
MAX_LINE_BYTES = 64 * 1024 * 1024
"""The limit of a line of a stream; the largest batch of a watch is far below it."""


class LineSplitter:
    """Splits a stream into lines. Raises `NotEtcd` for a line over `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without line ends; empty ones are left out."""
        *ended, rest = data.split(b"\n")
        lines = []
        for part in ended:
            line = b"".join((*self._parts, part)).strip()
            self._parts, self._size = [], 0
            if line:
                lines.append(line)
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > self._max_bytes:
                raise NotEtcd(f"a line is longer than {self._max_bytes} bytes")
        return lines

    def finish(self) -> list[bytes]:
        """At the end of the stream: the last line, if it has no line end (etcd's errors have none)."""
        return self.feed(b"\n")


class _Stream:
    """The lines of one streaming answer."""

    def __init__(
        self, endpoint: str, reply: GatewayReply, calls: EndpointCalls, failed: Callable[[EtcdError], None]
    ) -> None:
        self.endpoint = endpoint
        """The endpoint that sends it."""
        self._reply = reply
        self._calls = calls
        self._failed = failed
        self._splitter = LineSplitter()
        self._lines: deque[bytes] = deque()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def begin(self) -> None:
        """Returns once etcd has accepted the request. Raises as the iteration does."""
        await trio.lowlevel.checkpoint()

    async def _line(self) -> bytes | None:
        """The next line; None at the end. Raises `NoAnswer`."""
        await trio.lowlevel.checkpoint()
        while not (self._lines or self._ended):
            chunk = await anext(self._reply.chunks, None)
            self._ended = chunk is None
            self._lines.extend(self._splitter.finish() if chunk is None else self._splitter.feed(chunk))
        return self._lines.popleft() if self._lines else None


class WatchStream(_Stream):
    """An async iterator of `WatchBatch`: the first has `created`. Waits without a deadline.

    Ends only after a batch with `compact_revision`. Raises `EtcdUnavailable` when the stream breaks, when the
    member stops, or when it has had no leader for three election timeouts; `EtcdRefused` when etcd cancels it.
    """

    def __init__(
        self, endpoint: str, reply: GatewayReply, calls: EndpointCalls, failed: Callable[[EtcdError], None]
    ) -> None:
        super().__init__(endpoint, reply, calls, failed)
        self._first: WatchBatch | None = None
        self._over = False

    async def begin(self) -> None:
        """Wait for the first batch; a refusal comes in its place, with status 200."""
        self._first = await anext(self)

    async def __anext__(self) -> WatchBatch:
        if self._first is not None:
            first, self._first = self._first, None
            await trio.lowlevel.checkpoint()
            return first
        if self._over:
            raise StopAsyncIteration
        try:
            with self._calls.translated_errors(self.endpoint, "/watch"):
                line = await self._line()
                if line is None:
                    raise NoAnswer("the watch ended", sent=True)
                batch = read_watch_line(line)
        except EtcdError as error:
            self._failed(error)
            raise
        self._over = batch.canceled
        return batch


class SnapshotStream(_Stream):
    """An async iterator of bytes: etcd's database as `etcdctl snapshot save` stores it, its SHA-256 at the end.

    It is complete only if the iteration ends without an error: the last 32 bytes are the digest of the rest.
    """

    def __init__(
        self, endpoint: str, reply: GatewayReply, calls: EndpointCalls, failed: Callable[[EtcdError], None]
    ) -> None:
        super().__init__(endpoint, reply, calls, failed)
        self._digest = hashlib.sha256()
        self._last = b""
        self.size = 0
        """Bytes so far."""
        self.sha256 = ""
        """The digest in hexadecimal, once it is complete."""

    async def __anext__(self) -> bytes:
        try:
            with (
                self._calls.translated_errors(self.endpoint, "/maintenance/snapshot"),
                trio.fail_after(STALL_SECONDS),
            ):
                line = await self._line()
                part = read_snapshot_line(line) if line is not None else b""
        except trio.TooSlowError:
            error: EtcdError = EtcdUnavailable(self.endpoint, f"the snapshot stalled for {STALL_SECONDS:g} s")
            self._failed(error)
            raise error from None
        except EtcdError as error:
            self._failed(error)
            raise
        if line is None:
            self._finish()
            raise StopAsyncIteration
        self.size += len(part)
        tail = self._last + part
        self._digest.update(tail[:-DIGEST_BYTES])
        self._last = tail[-DIGEST_BYTES:]
        return part

    def _finish(self) -> None:
        # etcd's maintenance.proto: the last message holds the digest; nothing else marks the end.
        if self._last != self._digest.digest():
            raise EtcdUnavailable(
                self.endpoint, f"the snapshot is incomplete: SHA-256 differs after {self.size} bytes"
            )
        self.sha256 = self._digest.hexdigest()


S = TypeVar("S", WatchStream, SnapshotStream)


async def open_stream(
    stack: AsyncExitStack,
    calls: EndpointCalls,
    failed: Callable[[EtcdError], None],
    endpoint: str,
    path: str,
    body: bytes,
    kind: type[S],
    headers: Headers = (),
) -> S:
    """A stream that has begun; it ends with the stack. A token that has ended is renewed once."""
    again = calls.can_log_in
    while True:
        try:
            async with AsyncExitStack() as attempt:
                reply = await attempt.enter_async_context(calls.stream(endpoint, path, body, headers))
                found = kind(endpoint, reply, calls, failed)
                await found.begin()
                stack.push_async_exit(attempt.pop_all())
                return found
        except (EtcdTokenEnded, EtcdDenied):
            # A watch of etcd 3.5 calls an ended token "permission denied".
            if not again or calls.token_seconds < YOUNG_TOKEN_SECONDS:
                raise
        again = False
        await calls.renew(endpoint)
