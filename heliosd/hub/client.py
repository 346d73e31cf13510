"""One client as the hub knows it: its way out, its queue, its subscription, and how it ends."""

from __future__ import annotations

from enum import Enum, auto

import trio

from ..auth.access import Identity
from ..clock import rfc3339
from ..subscription import TO_EVERYTHING, Subscription
from ..websocket.frames import close_frame
from .goodbye import Goodbye
from .mailbox import Mailbox
from .outlet import Outlet
from .roster import ClientView

LINGER_SECONDS = 1.0
"""How long a client may take to answer a close frame before its connection is cut (CONTRACT 4.1)."""


class Delivery(Enum):
    """What became of one frame for one client."""

    WRITTEN = auto()
    """The socket has it, or its first part: nothing more is owed but by the pump that may be running."""
    QUEUED = auto()
    """It waits; a write pump must run."""
    REFUSED = auto()
    """The queue is full: the client does not get it."""
    GONE = auto()
    """There is no connection any more, or it is ending."""


class Client:
    """A connected client. All methods are synchronous, so each is one step for everybody else.

    `behind` is true from the moment something had to wait until a write pump has emptied the queue; while it is
    true only the pump writes, so two frames never mix.
    """

    __slots__ = (
        "address",
        "behind",
        "dropped",
        "goodbye",
        "id",
        "identity",
        "mailbox",
        "outlet",
        "rest",
        "scope",
        "sent",
        "serial",
        "since",
        "subscription",
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
    ) -> None:
        self.serial = serial
        """Counts connections since the daemon's start; spreads the pings."""
        self.id = client_id
        self.identity = identity
        self.address = address
        self.since = since
        self.outlet = outlet
        self.subscription = subscription
        self.mailbox = Mailbox(send_buffer)
        self.rest: bytes | memoryview = b""
        """The end of a frame whose beginning is on the wire: it goes before anything else."""
        self.behind = False
        self.goodbye: Goodbye | None = None
        """Set once the connection is ending; nothing is delivered after it."""
        self.scope = trio.CancelScope()
        """Around the connection's own task. The hub cancels it, and its deadline is the read deadline."""
        self.sent = 0
        self.dropped = 0

    def deliver(self, frame: bytes, replaces: str | None = None) -> Delivery:
        """Write `frame` now if nothing waits, else queue it. A queued frame of the same `replaces` goes."""
        if self.goodbye is not None:
            return Delivery.GONE
        if self.behind:
            if self.mailbox.put(frame, replaces):
                self.sent += 1
                return Delivery.WRITTEN  # its pump is running
            self.dropped += 1
            return Delivery.REFUSED
        self.sent += 1
        return self._write(frame)

    def end(self, goodbye: Goodbye, *, flush: bool) -> Delivery:
        """Send the close frame, behind what waits if `flush`, else instead of it. Only the first call counts."""
        if self.goodbye is not None:
            return Delivery.GONE
        self.goodbye = goodbye
        frame = close_frame(goodbye.code, goodbye.reason)
        if self.behind:
            if not flush:
                self.dropped += self.mailbox.clear()
            self.mailbox.put_last_words(frame)
            return Delivery.WRITTEN
        delivery = self._write(frame)
        if delivery is Delivery.WRITTEN:
            self.linger()
        return delivery

    def linger(self) -> None:
        """The close frame is on the wire: the client has a second to answer it."""
        self.scope.deadline = min(self.scope.deadline, trio.current_time() + LINGER_SECONDS)

    def cut(self, goodbye: Goodbye) -> None:
        """End the connection without a close frame: its socket takes nothing."""
        self.goodbye = self.goodbye or goodbye
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
            transport="websocket",
            queue=len(self.mailbox) + bool(self.rest),
            sent=self.sent,
            dropped=self.dropped,
        )

    def _write(self, frame: bytes) -> Delivery:
        try:
            taken = self.outlet.write_now(frame)
        except (OSError, ValueError, trio.ClosedResourceError):
            return Delivery.GONE
        if taken == len(frame) and not self.outlet.pending:
            return Delivery.WRITTEN
        self.rest = memoryview(frame)[taken:]
        self.behind = True
        return Delivery.QUEUED
