"""The Python client: every event once and in order, or a `Gap` that names the missing ones (`open_client`), and
single requests (`open_rest`)."""

from __future__ import annotations

from heliosd.errors import AccessRefused, ErrorAnswer, FollowingEnded, NotUnderstood, Unreachable
from heliosd.protocol.history import Cursor

from .client import Client, Connected, Disconnected, Item, open_client
from .http_api import Credentials, Password, TokenSource
from .rest_client import RestClient, open_rest
from .resume import Gap, Message

__all__ = [
    "AccessRefused",
    "Client",
    "Connected",
    "Credentials",
    "Cursor",
    "Disconnected",
    "ErrorAnswer",
    "FollowingEnded",
    "Gap",
    "Item",
    "Message",
    "NotUnderstood",
    "Password",
    "RestClient",
    "TokenSource",
    "Unreachable",
    "open_client",
    "open_rest",
]
