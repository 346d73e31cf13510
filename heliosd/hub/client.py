"""One client as the hub knows it: its connection, its subscription, what waits for it, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Protocol

from heliosd.auth.identity import Identity
from heliosd.clock import rfc3339
from heliosd.protocol.close_codes import CloseReason
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import TO_EVERYTHING, Subscription

from .client_view import ClientView, StreamKind
from .counters import HubCounters
from .send_queue import SendQueue
from .token_bucket import CONTROL_FRAMES_BURST, CONTROL_FRAMES_PER_SECOND, TokenBucket
from .transport import Reading, Transport

BATCH_BYTES = 64 * 1024
"""How much is joined into one write. A client must take so much within `write_timeout`, so that a trickle of bytes
does not count as keeping up."""

NOT_READY = -1
"""The place of a client that is not among the ready ones."""


class RecipientList(Protocol):
    """The clients that get the same bytes as this one (`recipients.py`), as far as a client needs it."""

    def reconsider(self, client: HubClient) -> None:
        """Whether the client is ready for a direct write may have changed."""

    def sent_to(self, client: HubClient) -> int:
        """How many messages the client was sent as one of them."""

    def in_flight(self, client: HubClient) -> bool:
        """Whether another thread may be writing to the client's socket right now."""


@dataclass(slots=True, eq=False)
class PacedValue:
    """One type of value of one client."""

    last: float = -inf
    """When one was sent last."""
    held: OutgoingMessage | None = None
    """The newest one, if it may not go yet."""
    deadline: int = 0
    """The number of the deadline at which `held` may go; 0: none is set."""


@dataclass(slots=True, weakref_slot=True, eq=False, kw_only=True)
class HubClient:
    """A connected client. All methods are synchronous, so each is one step for every other task.

    1. `behind` is true from the moment something has to wait until a write pump has emptied the queue. While it is
       true only the pump writes, and while the client is `in_flight` only the fan-out, so two frames never mix.
    2. The rest of a frame that is half written goes first, then what `SendQueue` gives.
    3. After each call the hub asks what is left to do: `wants_pump`, `gone`, `is_dropping`, `take_lost`.

    Thousands of clients are idle, so what only a busy one needs (queue, rate, held values) is made when needed.
    """

    serial: int
    """Counts connections since the daemon's start; spreads the pings."""
    id: str
    identity: Identity
    address: str
    since: float
    transport: Transport
    send_buffer: int
    """Messages that may wait."""
    subscription: Subscription = TO_EVERYTHING
    deflates: bool = False
    """It took compression."""
    stream_kind: StreamKind = "websocket"
    recipients: RecipientList | None = None
    """The clients that get the same bytes, once it has joined."""
    place: int = NOT_READY
    """Its place among the ready ones of them. Theirs to set."""
    queue: SendQueue | None = None
    """What waits for it; None where nothing does."""
    unsent: bytes | memoryview = b""
    """The end of a frame whose beginning is on the wire: it goes before anything else."""
    behind: bool = False
    wants_pump: bool = False
    """It has fallen behind, and the hub has not started a pump or woken its stream yet."""
    gone: bool = False
    """Nothing is written to its socket any more. Set by `lose`."""
    held: bool = False
    """Its token has expired: until it presents a newer one it gets nothing but answers."""
    warned: bool = False
    """It has been warned of its token's end."""
    next_due: int = 0
    """The number of its next deadline. Set by `TokenExpiry`."""
    paced: dict[str, PacedValue] | None = None
    """By type, values that it wants at intervals only. Set by `ValueThrottle`."""
    close_reason: CloseReason | None = None
    """Set once the connection is ending; nothing is delivered after it."""
    reader: Reading | None = None
    heard: float = 0.0
    """When something last came from it, in Trio's seconds."""
    waker: Callable[[], None] | None = None
    """Wakes the client's own way of sending, where it has one (an event stream); else the hub starts a pump."""
    bucket: TokenBucket | None = None
    control_bucket: TokenBucket | None = None
    dropped: int = 0
    """Events that it wanted and will not get, except by asking for the history."""
    counters: HubCounters | None = None
    """Where what goes out is counted for all clients. Set by `Connections`."""
    _sent: int = 0

    @property
    def send_queue(self) -> SendQueue:
        """What waits for it."""
        if self.queue is None:
            self.queue = SendQueue(self.send_buffer)
        return self.queue

    @property
    def waiting(self) -> int:
        """All messages that wait, with the replay and what is half written."""
        return (0 if self.queue is None else self.queue.waiting) + bool(self.unsent)

    @property
    def sent(self) -> int:
        """Messages that went out to it, or are about to."""
        return self._sent if self.recipients is None else self._sent + self.recipients.sent_to(self)

    def count_sent(self, messages: int) -> None:
        """Add to `sent`."""
        self._sent += messages

    def count(self, message: OutgoingMessage) -> None:
        """It goes out: add it to `sent`, and to the counts for all clients unless it is a frame of the protocol."""
        self._sent += 1
        if self.counters is not None and message.payload:
            frame = self.frame_of(message) if self.stream_kind == "websocket" else message.payload
            self.counters.count((message,), len(frame))

    def take_lost(self) -> int:
        """Add to `dropped` the events that were dropped since the last call; returns how many."""
        lost = 0
        if self.queue is not None and self.queue.lost:
            lost, self.queue.lost = self.queue.lost, 0
            self.dropped += lost
        return lost

    def takes(self, now: float, per_second: float, burst: int) -> bool:
        """Whether a message from it, which is counted, is within the rate. See `TokenBucket.allows`."""
        if self.bucket is None:
            self.bucket = TokenBucket()
        return self.bucket.allows(now, per_second, burst)

    def takes_control(self, now: float) -> bool:
        """Whether a ping or pong from it, which is counted, is within the rate."""
        if self.control_bucket is None:
            self.control_bucket = TokenBucket()
        return self.control_bucket.allows(now, CONTROL_FRAMES_PER_SECOND, CONTROL_FRAMES_BURST)

    @property
    def ready(self) -> bool:
        """A frame may be written to its socket right away."""
        if self.behind or self.held or self.gone or self.close_reason is not None:
            return False
        return self.queue is None or not self.queue.dropping

    @property
    def in_flight(self) -> bool:
        """Another thread may be writing to its socket: what comes waits until it is `landed`."""
        return self.recipients is not None and self.recipients.in_flight(self)

    @property
    def is_dropping(self) -> bool:
        """Its queue was full: until `resume_stream` nothing but answers is queued."""
        return self.queue is not None and self.queue.dropping

    def frame_of(self, message: OutgoingMessage) -> bytes:
        """The message in the form that this client agreed to."""
        return message.deflated if self.deflates else message.frame

    def holds_back(self, message: OutgoingMessage) -> bool:
        """Its token has expired, and until it presents a newer one `message` may not go."""
        if not self.held:
            return False
        return (
            message.kind is not Kind.CONTROL
            if self.queue is None
            else not self.queue.goes_while_held(message)
        )

    # -- what goes out next --------------------------------------------------------------------------------------

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
            or (self.queue is not None and self.queue.has(answers_only=self.held))
            or self.transport.pending
        )

    def take(self) -> OutgoingMessage | None:
        """The next message on its way out."""
        if self.queue is None:
            return None
        message = self.queue.pop(answers_only=self.held)
        if message is not None:
            self.count(message)
        return message

    # -- whether it is ready -----------------------------------------------------------------------------------

    def fall_behind(self) -> None:
        """Something has to wait for a pump."""
        if not self.behind:
            self.behind = self.wants_pump = True
            self.reconsider()

    def catch_up(self) -> None:
        """Nothing waits any more that may go."""
        self.behind = False
        self.unsent = b""
        if self.queue is not None and not self.queue.waiting and not self.queue.dropping:
            self.queue = None
        self.reconsider()

    def hold(self) -> None:
        """Its token has expired."""
        self.held = True
        if self.queue is not None:
            # A `subscribed` that waits goes ahead of events of the old subscription now.
            self.queue.narrow(self.subscription, events=True)
        self.reconsider()

    def is_ending(self, close_reason: CloseReason) -> None:
        """Nothing more is delivered. Only the first reason counts."""
        self.close_reason = self.close_reason or close_reason
        self.reconsider()

    def lose(self) -> None:
        """Its socket takes nothing any more, or it is not known what it took: nothing may follow that."""
        self.gone = True
        self.reconsider()

    def reconsider(self) -> None:
        """Something about it has changed: its place may be another."""
        if self.recipients is not None:
            self.recipients.reconsider(self)

    # -- the end -----------------------------------------------------------------------------------------------

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
        self.drop_all(close_reason)
        self.hang_up()
        self.transport.abort()

    def drop_all(self, close_reason: CloseReason) -> None:
        """Its connection is over: what waits will not be sent."""
        if self.queue is not None:
            self.queue.clear()
        self.is_ending(close_reason)

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
