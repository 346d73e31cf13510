"""A client's read pump: the task of its connection, parked until something comes that has to be handled."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import outcome
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task

from heliosd.hub.client import HubClient
from heliosd.websocket.connection import Inbound
from heliosd.websocket.frames import is_lone_pong
from heliosd.websocket.readiness import Readiness
from heliosd.websocket.tls import ClientStream

RECEIVE_BYTES = 4096
"""Read at once from a client: few, so that a flood of one-byte frames does not delay others for long."""

PONGS_IN_A_ROW = 16
"""After so many the next one goes to the parser, so that other tasks run."""


class ReadPump:
    """What the read pump of one client parks on. The hub ends it by `hang_up` and `linger`.

    A lone pong, all that most clients ever send, is counted as activity without waking the task.
    """

    __slots__ = (
        "_client",
        "_close_sent",
        "_more",
        "_over",
        "_readiness",
        "_stream",
        "_task",
        "answered",
        "inbound",
    )

    def __init__(self, client: HubClient, stream: ClientStream, readiness: Readiness) -> None:
        self._client = client
        self._stream = stream
        self._readiness = readiness
        self._task: Task | None = None
        # TLS may have read more from the socket than the request, of which epoll reports nothing.
        self._more = stream.encrypted
        self._over = self._close_sent = False
        self.answered = False
        """The client has sent its close frame, or nothing more from it counts."""
        self.inbound: Inbound | None = None
        """The parser, while a message is incomplete; else None."""
        readiness.add(stream.fileno(), self)

    def close(self) -> None:
        """Stop reading. To be called before the stream is closed."""
        self._readiness.discard(self._stream.fileno())
        self._client.reader = None
        if self.inbound is not None:
            self.inbound.end()

    def hang_up(self) -> None:
        """The connection is over: `receive` returns b"" from now on."""
        self._over = True
        # The caller may close the socket next, and `close` would not know its descriptor any more.
        self._readiness.discard(self._stream.fileno())
        self._wake(b"")

    def linger(self) -> None:
        """The close frame is on the wire: the present or next `receive` returns None, once."""
        if self._task is None:
            self._close_sent = True
        self._wake(None)

    def readable(self, *, ending: bool) -> None:
        self._more = self._more or ending
        if self._task is None:
            self._more = True  # it is running, and reads again before it parks
            return
        came = self._read()
        if came is not None:
            self._wake(came)

    def receive(self) -> Coroutine[Any, Any, bytes | None]:
        """What has come; b"" at the end, None once the hub's close frame is sent. Sets the client's read deadline.

        To be awaited at once. A checkpoint on every path.
        """
        if self._over:
            return _after_checkpoint(b"")
        if self._close_sent:
            self._close_sent = False
            return _after_checkpoint(None)
        if self._more and (came := self._read()) is not None:
            return _after_checkpoint(came)
        self._task = trio.lowlevel.current_task()
        # Thousands of clients wait here: in this coroutine, and in none of ours around it.
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105 (the caller awaits it)

    def _read(self) -> bytes | None:
        """What is to be handled; None: nothing, or lone pongs only."""
        for _ in range(PONGS_IN_A_ROW):
            try:
                came = self._stream.read_now(RECEIVE_BYTES)
            except OSError:
                came = b""
            if came is None:
                self._more = False
                return None
            if not came:
                self._over = True
                return came
            self._client.heard = trio.current_time()
            # With TLS only None means that nothing is left.
            self._more = self._more or len(came) == RECEIVE_BYTES or self._stream.encrypted
            if self.inbound is not None or not is_lone_pong(came):
                break
            if not self._more:
                return None
        return came

    def _wake(self, came: bytes | None) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task, outcome.Value(came))

    def _abort(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED


async def _after_checkpoint(came: bytes | None) -> bytes | None:
    await trio.lowlevel.checkpoint()
    return came
