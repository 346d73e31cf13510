"""`/api/cluster/events`: the WebSocket's messages as server-sent events, for clients without a WebSocket.

The client of an event stream is a client of the hub like any other: the same queue, replay, gap and rights. What
differs is who writes: Quart asks for the next piece when the socket has taken the last one, so that the messages
for a slow reader wait in its queue here as well.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
import trio
from msgspec import Struct

from heliosd.auth.identity import Identity
from heliosd.hub.client import BATCH_BYTES, HubClient
from heliosd.hub.event_log import EventLog
from heliosd.hub.hub import Hub
from heliosd.protocol.history import Cursor
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.subscription import Subscription

from .admission import Admission

COMMENT_SECONDS = 15.0
"""Between comments, by which proxies see that the stream is alive, and the daemon that its reader is."""


class EventStreams:
    """Opens event streams."""

    def __init__(self, hub: Hub, admission: Admission) -> None:
        self._hub = hub
        self._admission = admission

    def open(
        self, identity: Identity, cursor: Cursor | None, subscription: Subscription, address: str
    ) -> AsyncGenerator[bytes, None]:
        """The body of an event stream's response. The client joins with its first piece and leaves when the
        generator is closed; the generator ends when the hub ends the client.

        Raises `TryLater` at once if there is no room, or if the events since `cursor` are not known yet.
        """
        self._admission.check_room(identity)
        self._admission.check_cursor(cursor)
        transport = SseTransport(self._hub.log, cursor)
        client = self._admission.client(identity, subscription, transport, address, stream_kind="sse")
        client.waker = transport.wake
        return self._pieces(client, cursor, transport)

    async def _pieces(
        self, client: HubClient, cursor: Cursor | None, transport: SseTransport
    ) -> AsyncGenerator[bytes, None]:
        self._admission.joined(client)
        try:
            excerpt = await self._hub.log.missed(cursor, client.subscription)
            self._hub.sessions.join(client, cursor, excerpt)
            del excerpt  # the stream may last for months
            comment_due = trio.current_time() + COMMENT_SECONDS
            while True:
                if piece := transport.take(client):
                    yield piece
                elif client.close_reason is not None:
                    yield f": {client.close_reason.code} {client.close_reason.reason}\n\n".encode()
                    return
                else:
                    client.behind = False
                    with trio.move_on_at(comment_due):
                        await transport.more()
                if trio.current_time() >= comment_due and transport.between_events:
                    comment_due = trio.current_time() + COMMENT_SECONDS
                    complete = not (self._hub.publisher.publishing or client.waiting)
                    yield b":\n%b\n" % (transport.newest_id() if complete else b"")
        finally:
            left = client.close_reason.reason if client.close_reason is not None else "connection lost"
            self._admission.left(client, left)


class _StreamCursor(Struct):
    """What `status` and `welcome` say about the events that their reader has got."""

    as_of_seq: int = 0
    epoch: str = ""
    seq: int = 0
    recovered: bool = False
    reason: str | None = None


class _PlaceMessage(Struct):
    data: _StreamCursor


class SseTransport:
    """The hub's transport for an event stream, which takes from the queue itself: nothing is written to it.

    `write_now` is called only with a close frame, which means the end of the stream.
    """

    direct = encrypted = False
    pending = False

    def __init__(self, log: EventLog, cursor: Cursor | None) -> None:
        self._log = log
        self._news = trio.Event()
        self._epoch = ""
        self._rest = memoryview(b"")
        """Of a message that is longer than one write: what was not taken yet."""
        self._resumed_after = None if cursor is None else cursor.after

    def wake(self) -> None:
        """The queue is no longer empty. Called first inside of `ClientSessions.join`."""
        self._epoch = self._epoch or self._log.history.epoch
        self._news.set()

    async def more(self) -> None:
        """Wait until something comes. No checkpoint may be between this and finding nothing."""
        self._news = trio.Event()
        await self._news.wait()

    def take(self, client: HubClient) -> bytes:
        """What is queued, at most one write of it."""
        if self._rest:
            return self._next_part()
        fields: list[bytes] = []
        room = BATCH_BYTES
        while room > 0 and (message := client.take()) is not None:
            if len(message.payload) > BATCH_BYTES:
                # Its bytes are those of all clients: a copy of them would be this client's own while it waits.
                self._rest = memoryview(message.payload)
                fields.append(self._id(self._point(message)) + b"data: ")
                break
            fields.append(self._event(message))
            room -= len(fields[-1])
        return b"".join(fields)

    @property
    def between_events(self) -> bool:
        """What was taken last ended with an event."""
        return not self._rest

    def _next_part(self) -> bytes:
        part, self._rest = self._rest[:BATCH_BYTES], self._rest[BATCH_BYTES:]
        return bytes(part) if self._rest else bytes(part) + b"\n\n"

    def newest_id(self) -> bytes:
        """The id line for a client that has been sent all that it wants; b"" while its epoch is not the log's."""
        history = self._log.history
        return self._id(history.seq) if self._epoch == history.epoch else b""

    def _event(self, message: OutgoingMessage) -> bytes:
        if not message.payload:
            return b""  # the close frame
        # JSON holds no raw line end, so it is one line of data.
        return b"%bdata: %b\n\n" % (self._id(self._point(message)), message.payload)

    def _point(self, message: OutgoingMessage) -> int | None:
        """The number up to which a client with this message has been sent all events; None: as before."""
        if message.type not in {"status", "welcome"}:
            return message.seq
        place = msgspec.json.decode(message.payload, type=_PlaceMessage).data
        if message.type == "status":
            return place.as_of_seq
        self._epoch = place.epoch  # a change of the epoch reaches clients as a welcome, in order
        # The replay follows, so a stream that is cut in it goes on from the same place.
        # Where there is too much for a replay nothing is lost yet: the history still has it.
        resumes = place.recovered or place.reason == "too_many"
        return place.seq if self._resumed_after is None or not resumes else self._resumed_after

    def _id(self, seq: int | None) -> bytes:
        return b"" if seq is None or not self._epoch else b"id: %b:%d\n" % (self._epoch.encode(), seq)

    def fileno(self) -> int:
        return -1

    def encrypt(self, data: bytes) -> bytes:
        return data

    def keep(self, rest: bytes | memoryview) -> None:
        pass

    def begin_flight(self) -> None:
        raise AssertionError("nothing is encrypted here")

    def end_flight(self, rest: bytes | memoryview) -> None:
        raise AssertionError("nothing is encrypted here")

    def write_now(self, data: bytes | memoryview) -> int:
        self.wake()
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self.wake()
