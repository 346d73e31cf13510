"""A client's read pump: the task of its connection, parked until something comes that is worth waking it."""

from __future__ import annotations

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task

from heliosd.hub.client import HubClient
from heliosd.websocket.connection import Inbound
from heliosd.websocket.frames import is_lone_pong
from heliosd.websocket.readiness import Readiness
from heliosd.websocket.tls import ClientStream

RECEIVE_BYTES = 4096
"""Read at once from a client: so little that a flood of one-byte frames holds nobody else up for long."""


PONGS_IN_A_ROW = 16
"""Of more than so many the last goes to the parser, so that others get their turn."""


class ReadPump:
    """What the read pump of one client parks on. The hub ends it by `hang_up` and `linger`.

    A lone pong, the only thing that most clients ever send, is noted without waking the task.
    """

    __slots__ = (
        "_came",
        "_client",
        "_farewell",
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
        self._came: bytes | None = b""
        # TLS may have taken more out of the socket with the request than the request, and epoll will not tell.
        self._more = stream.encrypted
        self._over = self._farewell = False
        self.answered = False
        """The client has said its own goodbye, or can say nothing more that counts."""
        self.inbound: Inbound | None = None
        """The parser, while the client is in the middle of a message; else None."""
        readiness.add(stream.fileno(), self)

    def close(self) -> None:
        """Nothing comes any more. To be called before the stream is closed."""
        self._readiness.discard(self._stream.fileno())
        self._client.reader = None

    def hang_up(self) -> None:
        """The connection is over: whoever waits gets b"", now and ever after."""
        self._over = True
        # Whoever says so may close the socket next, and `close` would not know its number any more.
        self._readiness.discard(self._stream.fileno())
        self._wake(b"")

    def linger(self) -> None:
        """The close frame is on the wire: whoever waits, or waits next, gets None, once."""
        if self._task is None:
            self._farewell = True
        self._wake(None)

    def readable(self, *, ending: bool) -> None:
        self._more = self._more or ending
        if self._task is None:
            self._more = True  # it is at work, and looks again before it parks
            return
        came = self._read()
        if came is not None:
            self._wake(came)

    async def receive(self) -> bytes | None:
        """What has come; b"" at the end, None when the hub has said goodbye. Keeps the client's read deadline.

        A checkpoint on every path.
        """
        if self._over:
            await trio.lowlevel.checkpoint()
            return b""
        if self._farewell:
            self._farewell = False
            await trio.lowlevel.checkpoint()
            return None
        if self._more and (came := self._read()) is not None:
            await trio.lowlevel.checkpoint()
            return came
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        return self._came

    def _read(self) -> bytes | None:
        """What there is to be told; None: nothing, or lone pongs."""
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
            # TLS says only by None that nothing is left.
            self._more = self._more or len(came) == RECEIVE_BYTES or self._stream.encrypted
            if self.inbound is not None or not is_lone_pong(came):
                break
            if not self._more:
                return None
        return came

    def _wake(self, came: bytes | None) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            self._came = came
            trio.lowlevel.reschedule(task)

    def _abort(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED
