"""Which clients are admitted to the hub, by WebSocket or by event stream."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import count

from heliosd.auth.identity import Identity
from heliosd.clock import Instant
from heliosd.config.model import Settings
from heliosd.hub.client import HubClient
from heliosd.hub.client_view import StreamKind
from heliosd.hub.hub import Hub
from heliosd.hub.transport import Transport
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import Subscription
from heliosd.web.problems import NotReadYet, TryLater

from .connection_log import ConnectionLog


class Admission:
    """Checks the limits on clients, makes clients, and logs when they join and leave."""

    def __init__(self, *, settings: Settings, hub: Hub, now: Callable[[], Instant]) -> None:
        self.stopping = False
        """Set when the daemon stops: new clients are refused, so that they go to another node."""
        self._settings = settings
        self._hub = hub
        self._now = now
        self._serials = count(1)
        self.connection_log = ConnectionLog()

    def check_room(self, identity: Identity) -> None:
        """Raise `TryLater` (503) if this user cannot have one more connection now."""
        websocket = self._settings.current.websocket
        mine = websocket.max_clients_per_user
        if (
            self.stopping
            or self._hub.connections.places >= websocket.max_clients
            or (mine and self._hub.connections.places_of(identity) >= mine)
        ):
            # Jittered, so that those who were refused together do not come back together.
            later = random.randint(1, 10)  # noqa: S311
            raise TryLater("Stopping" if self.stopping else "Too many clients", status=503, seconds=later)

    def check_cursor(self, cursor: Cursor | None) -> None:
        """Raise `NotReadYet` if the events since `cursor` are not known yet. The answer `epoch_changed` would make
        the client give its cursor up, although nothing may be lost."""
        if cursor is not None and cursor.after is not None and not self._hub.log.readable:
            raise NotReadYet

    def client(
        self,
        identity: Identity,
        subscription: Subscription,
        transport: Transport,
        address: str,
        *,
        stream_kind: StreamKind,
        deflates: bool = False,
    ) -> HubClient:
        """A client that has not joined the hub yet. It takes a place: no checkpoint may lie between this and
        `check_room`."""
        client = HubClient(
            serial=next(self._serials),
            id=os.urandom(8).hex(),
            identity=identity,
            address=address,
            since=self._now().wall,
            transport=transport,
            send_buffer=self._settings.current.websocket.send_buffer,
            subscription=subscription,
            deflates=deflates,
            stream_kind=stream_kind,
        )
        self._hub.connections.admit(client)
        return client

    def joined(self, client: HubClient) -> None:
        """Log that `client` joins the hub."""
        self.connection_log.joined(client)

    def left(self, client: HubClient, reason: str) -> None:
        """`client` has ended: remove it from the hub and log it."""
        self._hub.sessions.leave(client)
        self.connection_log.left(client, reason)
