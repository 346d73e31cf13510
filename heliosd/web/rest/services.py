"""The parts of the daemon that the REST API needs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol

from msgspec import Struct, field

from heliosd.alerts.counters import AlertCounters
from heliosd.auth.access import Access
from heliosd.auth.identity import Identity
from heliosd.auth.revoked_tokens import RevokedTokens
from heliosd.auth.tickets import Tickets
from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.config.model import Settings
from heliosd.hub.client_view import ClientView, StreamKind
from heliosd.hub.counters import HubCounters
from heliosd.protocol.history import Cursor, Excerpt, History
from heliosd.protocol.subscription import Subscription
from heliosd.store.changes import Save
from heliosd.web.authentication import Authenticator


class Roster(Protocol):
    """Who is connected. The hub implements it."""

    @property
    def counters(self) -> HubCounters: ...

    async def views(self) -> list[ClientView]:
        """Every connected client."""
        ...

    def count(self, stream_kind: StreamKind | None = None) -> int:
        """How many are connected, in all or of one kind."""
        ...

    def ids(self, stream_kind: StreamKind, at_most: int) -> list[str]:
        """The ids of those who have been connected longest."""
        ...

    async def queue_depth(self) -> int:
        """Messages that wait for the sockets of all clients together."""
        ...

    def disconnect(self, client_id: str) -> bool:
        """Close this client with 4000; False if there is none."""
        ...


class Events(Protocol):
    """The events so far. The hub's event log implements it."""

    @property
    def history(self) -> History: ...

    @property
    def readable(self) -> bool:
        """Whether the history is complete: False until the cluster's log has been read."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why events cannot be stored; None: they are stored."""
        ...

    def behind(self, cursor: Cursor | None) -> bool:
        """Whether `reach` is needed before the history is read."""
        ...

    async def read(self, excerpt: Excerpt, epoch: str) -> None:
        """Let it look at all events of this epoch that are kept, with pauses."""
        ...

    async def reach(self, cursor: Cursor) -> None:
        """Wait, for a moment at most, until the events up to `cursor` are in the history."""
        ...


class Streams(Protocol):
    """Opens event streams. `EventStreams` implements it."""

    def open(
        self, identity: Identity, cursor: Cursor | None, subscription: Subscription, address: str
    ) -> AsyncGenerator[bytes, None]:
        """The body of an event stream's response. Raises `TryLater` if none can be opened now."""
        ...


class Services(Struct, frozen=True, kw_only=True):
    settings: Settings
    backend: Backend
    access: Access
    revoked_tokens: RevokedTokens
    authenticator: Authenticator
    tickets: Tickets
    roster: Roster
    events: Events
    alert_counters: AlertCounters
    streams: Streams
    save: Save
    stored: Mapping[str, bytes] = field(default_factory=dict)
    """The store's values as the start read them."""
    log_refused: Callable[[str, int, str], None]
    """Logs a refused request by address, status and reason; may leave out lines when there are many."""
    now: Callable[[], Instant]
