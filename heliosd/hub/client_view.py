"""Who is connected, as `GET /api/cluster/clients` shows it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

StreamKind = Literal["websocket", "sse"]
"""How a client is connected: by WebSocket, or by an event stream, on which it cannot answer."""


class ClientView(Struct, frozen=True, kw_only=True):
    """One connected client."""

    id: str
    user: str
    address: str
    """`HOST:PORT` of the peer."""
    since: str
    """RFC 3339 in UTC."""
    transport: StreamKind
    queue: int
    """Messages that wait for its socket."""
    sent: int
    dropped: int
