"""The Python client: every event once and in order, or a `Gap` that names the missing ones. See `open_client`."""

from __future__ import annotations

from heliosd.errors import AccessRefused, FollowingEnded, NotUnderstood
from heliosd.protocol.history import Cursor

from .client import Client, Connected, Disconnected, Item, open_client
from .http_api import Credentials, Password, TokenSource
from .resume import Gap, Message

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
