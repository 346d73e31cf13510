"""One client as the hub knows it: its way out, its queue, its subscription, and how it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Protocol

import trio

from heliosd.auth.identity import Identity
from heliosd.clock import rfc3339
from heliosd.protocol.close_codes import CloseReason
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import TO_EVERYTHING, Subscription
from heliosd.websocket.frames import close_frame

from .client_view import ClientView, StreamKind
from .send_queue import SendQueue
from .token_bucket import TokenBucket
from .transport import Transport

BATCH_BYTES = 64 * 1024
"""How much is joined into one write. It is also what a client must take within `write_timeout`, so that a
trickle of bytes does not pass for a client that keeps up."""

LINGER_SECONDS = 1.0
"""How long a client may take to answer a close frame before its connection is cut."""

NOT_READY = -1
"""The place of a client that is not among the ready ones."""


class Delivery(Enum):
    """What became of one message for one client."""

    DONE = auto()
    """The socket has it, or a pump that is running will see to it, or it waits for a newer token."""
    QUEUED = auto()
    """It waits; a write pump must run."""
    REFUSED = auto()
    """The queue is full: the client does not get it."""
    GONE = auto()
    """There is no connection any more, or it is ending."""


class RecipientList(Protocol):
    """The clients that get the same bytes as this one (`recipients.py`), as far as a client needs it."""

    def reconsider(self, client: HubClient) -> None:
        """Whether the client is ready for a direct write may have changed."""

    def sent_to(self, client: HubClient) -> int:
        """How many messages the client was sent as one of them."""


class Reading(Protocol):
    """The task that reads from a client, which is its connection's own, as the hub may end it. Synchronous."""

    def hang_up(self) -> None:
        """The connection is over."""

    def linger(self) -> None:
        """The close frame is on the wire: the client has `LINGER_SECONDS` to answer it."""


class HubClient:
    """A connected client. All methods are synchronous, so each is one step for everybody else.

    `behind` is true from the moment something had to wait until a write pump has emptied the queue; while it is
    true only the pump writes, so two frames never mix. What waits goes out in this order: the rest of the frame
    that is half written, the replay, the queue.

    Thousands of clients are idle, so what only a busy one needs (queue, replay, rate) is made when it is needed.
    """

    __slots__ = (
        "_send_queue",
        "_sent",
        "address",
        "behind",
        "bucket",
        "close_reason",
        "deflates",
        "dropped",
        "heard",
        "held",
        "id",
        "identity",
        "next_due",
        "place",
        "reader",
        "recipients",
        "replay",
        "send_buffer",
        "serial",
        "since",
        "stream_kind",
        "subscription",
        "transport",
        "unsent",
        "waker",
        "warned",
    )

    def __init__(
        self,
        *,
        serial: int,
        client_id: str,
        identity: Identity,
        address: str,
        since: float,
        transport: Transport,
        send_buffer: int,
        subscription: Subscription = TO_EVERYTHING,
        deflates: bool = False,
        stream_kind: StreamKind = "websocket",
    ) -> None:
        self.serial = serial
        """Counts connections since the daemon's start; spreads the pings."""
        self.id = client_id
        self.identity = identity
        self.address = address
        self.since = since
        self.transport = transport
        self.send_buffer = send_buffer
        """Messages that may wait."""
        self.subscription = subscription
        self.deflates = deflates
        """It took compression."""
        self.stream_kind: StreamKind = stream_kind
        self.recipients: RecipientList | None = None
        """Those who get the same bytes, once it has joined; it keeps `place`."""
        self.place = NOT_READY
        """Where it stands among the ready ones of its audience."""
        self._send_queue: SendQueue | None = None
        self.replay: deque[OutgoingMessage] | None = None
        """What it missed, ahead of the queue and outside of the queue's limits."""
        self.unsent: bytes | memoryview = b""
        """The end of a frame whose beginning is on the wire: it goes before anything else."""
        self.behind = False
        self.held = False
        """Its token has expired: until it brings a newer one it gets nothing but answers."""
        self.warned = False
        """It has been told of its token's end."""
        self.next_due = 0
        """By this number `Rights` knows what comes next for its token."""
        self.close_reason: CloseReason | None = None
        """Set once the connection is ending; nothing is delivered after it."""
        self.reader: Reading | None = None
        self.heard = 0.0
        """When something last came from it, in Trio's seconds."""
        self.waker: Callable[[], None] | None = None
        """Wakes the client's own way of sending, where it has one (an event stream); else the hub starts a pump."""
        self.bucket: TokenBucket | None = None
        self._sent = 0
        self.dropped = 0

    @property
    def send_queue(self) -> SendQueue:
        """What waits for it."""
        if self._send_queue is None:
            self._send_queue = SendQueue(self.send_buffer)
        return self._send_queue

    @property
    def queued(self) -> int:
        """Messages that wait in the queue."""
        return 0 if self._send_queue is None else len(self._send_queue)

    @property
    def waiting(self) -> int:
        """All messages that wait, with the replay and what is half written."""
        return self.queued + len(self.replay or ()) + bool(self.unsent)

    @property
    def sent(self) -> int:
        """Messages that went out to it, or are about to."""
        return self._sent if self.recipients is None else self._sent + self.recipients.sent_to(self)

    def count_sent(self, messages: int) -> None:
        """So many more."""
        self._sent += messages

    def takes(self, now: float, per_second: float, burst: int) -> bool:
        """Whether a message from it is within the rate, of which it is counted. See `Bucket.allows`."""
        if self.bucket is None:
            self.bucket = TokenBucket()
        return self.bucket.allows(now, per_second, burst)

    @property
    def ready(self) -> bool:
        """A frame may be written to its socket right away."""
        return not (self.behind or self.held) and self.close_reason is None

    def frame_of(self, message: OutgoingMessage) -> bytes:
        """The message in the form that this client agreed to."""
        return message.deflated if self.deflates else message.frame

    def begin(self, greeting: bytes, message: OutgoingMessage) -> Delivery:
        """Write the first message, and before it what the connection itself has to say first, in one."""
        self._sent += 1
        return self._write(greeting + self.frame_of(message))

    def deliver(self, message: OutgoingMessage) -> Delivery:
        """Write `message` now if nothing waits, else queue it."""
        if self.close_reason is not None:
            return Delivery.GONE
        if self.behind or self.waker is not None or (self.held and message.kind is not Kind.CONTROL):
            return self.flush() if self.send_queue.put(message) else Delivery.REFUSED
        self._sent += 1
        return self._write(self.frame_of(message))

    def deliver_all(
        self, messages: Sequence[OutgoingMessage], frames: bytes
    ) -> tuple[Delivery, Sequence[OutgoingMessage]]:
        """Deliver one after the other, as far as they fit; returns what became of the last, and those that did
        not fit. `frames` are the messages joined, in the form that this client agreed to."""
        if self.ready and self.waker is None:
            self._sent += len(messages)
            return self._write(frames), ()
        outcome = Delivery.DONE
        for number, message in enumerate(messages):
            delivery = self.deliver(message)
            if delivery in {Delivery.REFUSED, Delivery.GONE}:
                return delivery, messages[number:]
            if delivery is Delivery.QUEUED:
                outcome = delivery
        return outcome, ()

    def deliver_replay(self, messages: Iterable[OutgoingMessage]) -> Delivery:
        """Give a client that has just joined what it missed. It does not count against the queue."""
        assert not self.behind
        self.replay = deque(messages)
        return self.flush()

    def flush(self) -> Delivery:
        """Whatever waits may go, unless a pump sees to it already: the first of it at once, the rest by a pump."""
        if self.behind or self.close_reason is not None or not self.has_more():
            return Delivery.DONE
        if self.waker is None:
            delivery = self._write(self.take_joined())
            if delivery is not Delivery.DONE or not self.has_more():
                return delivery
        self.fall_behind()
        return Delivery.QUEUED

    def take_joined(self) -> bytes:
        """The next frames, joined until they fill `BATCH_BYTES`."""
        frames: list[bytes] = []
        room = BATCH_BYTES
        while room > 0 and (message := self.take()) is not None:
            frames.append(self.frame_of(message))
            room -= len(frames[-1])
        return b"".join(frames)

    def has_more(self) -> bool:
        """Whether a pump has something to do."""
        return bool(
            self.unsent
            or (self.replay and not self.held)
            or (self._send_queue is not None and self._send_queue.has(answers_only=self.held))
            or self.transport.pending
        )

    def take(self) -> OutgoingMessage | None:
        """The next message on its way out."""
        message: OutgoingMessage | None = None
        if self.replay and not self.held:
            message = self.replay.popleft()
        elif self._send_queue is not None:
            message = self._send_queue.pop(answers_only=self.held)
        if message is not None:
            self._sent += 1
        return message

    def forget_what_waits(self) -> int:
        """Drop all but answers, because it says nothing any more; returns how many events that was."""
        self.replay = None
        dropped = None if self._send_queue is None else self._send_queue.drop()
        return 0 if dropped is None else dropped.events

    # -- whether it is ready -----------------------------------------------------------------------------------

    def fall_behind(self) -> None:
        """Something has to wait for a pump."""
        self.behind = True
        self._reconsider()

    def catch_up(self) -> None:
        """Nothing waits any more."""
        self.behind = False
        self.unsent = b""
        self.replay = self.replay or None
        if self._send_queue is not None and not len(self._send_queue):
            self._send_queue = None
        self._reconsider()

    def hold(self) -> None:
        """Its token has expired."""
        self.held = True
        self._reconsider()

    def unhold(self) -> None:
        """It has brought a newer token. What waited for that is the caller's to `flush`."""
        self.held = False
        self._reconsider()

    def is_ending(self, close_reason: CloseReason) -> None:
        """Nothing more is delivered. Only the first goodbye counts."""
        self.close_reason = self.close_reason or close_reason
        self._reconsider()

    def _reconsider(self) -> None:
        if self.recipients is not None:
            self.recipients.reconsider(self)

    # -- the end -----------------------------------------------------------------------------------------------

    def end(self, close_reason: CloseReason, *, flush: bool) -> Delivery:
        """Send the close frame, behind what waits if `flush`, else instead of it. Only the first call counts."""
        if self.close_reason is not None:
            return Delivery.GONE
        self.is_ending(close_reason)
        frame = close_frame(close_reason.code, close_reason.reason)
        if not flush or self.held:
            self.replay = None
            self.dropped += 0 if self._send_queue is None else self._send_queue.clear()
        self.held = False
        if self.behind:
            self.send_queue.put_final(OutgoingMessage.of_frame("close frame", frame))
            return Delivery.DONE
        delivery = self._write(frame)
        if delivery is Delivery.DONE:
            self.linger()
        return delivery

    def linger(self) -> None:
        """The close frame is on the wire: the client has a second to answer it."""
        if self.reader is not None:
            self.reader.linger()

    def hang_up(self) -> None:
        """Its connection is over; its own task ends, and takes it out of the hub."""
        if self.reader is not None:
            self.reader.hang_up()

    def abort(self, close_reason: CloseReason) -> None:
        """End the connection without a close frame: its socket takes nothing."""
        self.is_ending(close_reason)
        self.replay = self._send_queue = None
        self.hang_up()
        self.transport.abort()

    def view(self) -> ClientView:
        """This client as `GET /api/cluster/clients` shows it."""
        return ClientView(
            id=self.id,
            user=self.identity.user_id,
            address=self.address,
            since=rfc3339(self.since),
            transport=self.stream_kind,
            queue=self.waiting,
            sent=self.sent,
            dropped=self.dropped,
        )

    def _write(self, frame: bytes) -> Delivery:
        try:
            taken = self.transport.write_now(frame)
        except (OSError, ValueError, trio.ClosedResourceError):
            return Delivery.GONE
        if taken == len(frame) and not self.transport.pending:
            return Delivery.DONE
        self.unsent = memoryview(frame)[taken:]
        self.fall_behind()
        return Delivery.QUEUED
