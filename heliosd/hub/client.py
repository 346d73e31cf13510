"""One client as the hub knows it: its way out, its queue, its subscription, and how it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto

import trio

from ..auth.identity import Identity
from ..clock import rfc3339
from ..message import Kind, Message
from ..subscription import TO_EVERYTHING, Subscription
from ..websocket.frames import close_frame
from .goodbye import Goodbye
from .mailbox import Mailbox
from .outlet import Outlet
from .rate import Bucket
from .roster import ClientView, Transport

BATCH_BYTES = 64 * 1024
"""How much is joined into one write. It is also what a client must take within `write_timeout`, so that a
trickle of bytes does not pass for a client that keeps up."""

LINGER_SECONDS = 1.0
"""How long a client may take to answer a close frame before its connection is cut."""


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


class Client:
    """A connected client. All methods are synchronous, so each is one step for everybody else.

    `behind` is true from the moment something had to wait until a write pump has emptied the queue; while it is
    true only the pump writes, so two frames never mix. What waits goes out in this order: the rest of the frame
    that is half written, the replay, the queue.
    """

    __slots__ = (
        "address",
        "behind",
        "bucket",
        "deflates",
        "dropped",
        "fileno",
        "goodbye",
        "held",
        "id",
        "identity",
        "mailbox",
        "next_due",
        "outlet",
        "replay",
        "rest",
        "scope",
        "sent",
        "serial",
        "since",
        "subscription",
        "transport",
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
        outlet: Outlet,
        send_buffer: int,
        subscription: Subscription = TO_EVERYTHING,
        deflates: bool = False,
        transport: Transport = "websocket",
    ) -> None:
        self.serial = serial
        """Counts connections since the daemon's start; spreads the pings."""
        self.id = client_id
        self.identity = identity
        self.address = address
        self.since = since
        self.outlet = outlet
        self.fileno = outlet.fileno if outlet.direct else None
        """The outlet's, where the hub may write to the descriptor by itself: asked for at every delivery."""
        self.subscription = subscription
        self.deflates = deflates
        """It took compression."""
        self.transport: Transport = transport
        self.mailbox = Mailbox(send_buffer)
        self.replay: deque[Message] = deque()
        """What it missed, ahead of the queue and outside of the queue's limits."""
        self.rest: bytes | memoryview = b""
        """The end of a frame whose beginning is on the wire: it goes before anything else."""
        self.behind = False
        self.held = False
        """Its token has expired: until it brings a newer one it gets nothing but answers."""
        self.warned = False
        """It has been told of its token's end."""
        self.next_due = 0
        """By this number `Rights` knows what comes next for its token."""
        self.goodbye: Goodbye | None = None
        """Set once the connection is ending; nothing is delivered after it."""
        self.scope = trio.CancelScope()
        """Around the connection's own task. The hub cancels it, and its deadline is the read deadline."""
        self.waker: Callable[[], None] | None = None
        """Wakes the client's own way of sending, where it has one (an event stream); else the hub starts a pump."""
        self.bucket = Bucket()
        self.sent = 0
        self.dropped = 0

    @property
    def ready(self) -> bool:
        """A frame may be written to its socket right away."""
        return not (self.behind or self.held) and self.goodbye is None

    def frame_of(self, message: Message) -> bytes:
        """The message in the form that this client agreed to."""
        return message.deflated if self.deflates else message.frame

    def deliver(self, message: Message) -> Delivery:
        """Write `message` now if nothing waits, else queue it."""
        if self.goodbye is not None:
            return Delivery.GONE
        if self.behind or self.waker is not None or (self.held and message.kind is not Kind.CONTROL):
            return self.flush() if self.mailbox.put(message) else Delivery.REFUSED
        self.sent += 1
        return self._write(self.frame_of(message))

    def deliver_all(self, messages: Sequence[Message]) -> tuple[Delivery, Sequence[Message]]:
        """Deliver one after the other, as far as they fit; returns what became of the last, and those that did
        not fit."""
        outcome = Delivery.DONE
        for number, message in enumerate(messages):
            delivery = self.deliver(message)
            if delivery in {Delivery.REFUSED, Delivery.GONE}:
                return delivery, messages[number:]
            if delivery is Delivery.QUEUED:
                outcome = delivery
        return outcome, ()

    def deliver_replay(self, messages: Iterable[Message]) -> Delivery:
        """Give a client that has just joined what it missed. It does not count against the queue."""
        assert not self.behind
        self.replay.extend(messages)
        return self.flush()

    def flush(self) -> Delivery:
        """Whatever waits may go, unless a pump sees to it already: the first of it at once, the rest by a pump."""
        if self.behind or self.goodbye is not None or not self.has_more():
            return Delivery.DONE
        if self.waker is None:
            delivery = self._write(self.take_joined())
            if delivery is not Delivery.DONE or not self.has_more():
                return delivery
        self.behind = True
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
            self.rest
            or (self.replay and not self.held)
            or self.mailbox.has(answers_only=self.held)
            or self.outlet.pending
        )

    def take(self) -> Message | None:
        """The next message on its way out."""
        if self.replay and not self.held:
            message: Message | None = self.replay.popleft()
        else:
            message = self.mailbox.pop(answers_only=self.held)
        if message is not None:
            self.sent += 1
        return message

    def forget_what_waits(self) -> int:
        """Drop all but answers, because it says nothing any more; returns how many events that was."""
        self.replay.clear()
        dropped = self.mailbox.drop()
        return 0 if dropped is None else dropped.events

    def end(self, goodbye: Goodbye, *, flush: bool) -> Delivery:
        """Send the close frame, behind what waits if `flush`, else instead of it. Only the first call counts."""
        if self.goodbye is not None:
            return Delivery.GONE
        self.goodbye = goodbye
        frame = close_frame(goodbye.code, goodbye.reason)
        if not flush or self.held:
            self.replay.clear()
            self.dropped += self.mailbox.clear()
        self.held = False
        if self.behind:
            self.mailbox.put_last_words(Message.of_frame("close frame", frame))
            return Delivery.DONE
        delivery = self._write(frame)
        if delivery is Delivery.DONE:
            self.linger()
        return delivery

    def linger(self) -> None:
        """The close frame is on the wire: the client has a second to answer it."""
        self.scope.deadline = min(self.scope.deadline, trio.current_time() + LINGER_SECONDS)

    def cut(self, goodbye: Goodbye) -> None:
        """End the connection without a close frame: its socket takes nothing."""
        self.goodbye = self.goodbye or goodbye
        self.replay.clear()
        self.mailbox.clear()
        self.outlet.abort()
        self.scope.cancel()

    def view(self) -> ClientView:
        """This client as `GET /api/cluster/clients` shows it."""
        return ClientView(
            id=self.id,
            user=self.identity.user_id,
            address=self.address,
            since=rfc3339(self.since),
            transport=self.transport,
            queue=len(self.mailbox) + len(self.replay) + bool(self.rest),
            sent=self.sent,
            dropped=self.dropped,
        )

    def _write(self, frame: bytes) -> Delivery:
        try:
            taken = self.outlet.write_now(frame)
        except (OSError, ValueError, trio.ClosedResourceError):
            return Delivery.GONE
        if taken == len(frame) and not self.outlet.pending:
            return Delivery.DONE
        self.rest = memoryview(frame)[taken:]
        self.behind = True
        return Delivery.QUEUED
