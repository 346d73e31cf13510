"""The Python client: every event once and in order, or told which are missing. See `open_client`."""

from __future__ import annotations

from .client import (
    AccessRefused,
    Client,
    Connected,
    Credentials,
    Cursor,
    Disconnected,
    FollowingEnded,
    Gap,
    Item,
    Message,
    NotUnderstood,
    Password,
    TokenSource,
    open_client,
)

__all__ = [
    "AccessRefused",
    "Client",
    "Connected",
    "Credentials",
    "Cursor",
    "Disconnected",
    "FollowingEnded",
    "Gap",
    "Item",
    "Message",
    "NotUnderstood",
    "Password",
    "TokenSource",
    "open_client",
]
