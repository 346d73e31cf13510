"""What the REST API is built from: the parts of the daemon that it shows and steers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..auth.access import Access
from ..clock import Instant
from ..cluster.backend import Backend
from ..config import Settings
from ..durable import Save
from ..hub.counters import HubCounters
from ..hub.roster import ClientView


class Roster(Protocol):
    """Who is connected. The hub is one."""

    @property
    def counters(self) -> HubCounters: ...

    def views(self) -> list[ClientView]:
        """Every connected client."""
        ...

    def count(self) -> int:
        """How many are connected."""
        ...

    def queue_depth(self) -> int:
        """Messages that wait for the sockets of all clients together."""
        ...

    def disconnect(self, client_id: str) -> bool:
        """Close this client with 4000; False if there is none."""
        ...

    def token_revoked(self, jti: str) -> None:
        """Close every client that came with this token, with 4401, at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    settings: Settings
    backend: Backend
    access: Access
    roster: Roster
    save: Save
    now: Callable[[], Instant]
