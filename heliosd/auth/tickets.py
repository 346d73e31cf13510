"""Tickets: what a page puts into a URL in place of its token, since a browser's WebSocket and EventSource take no
headers. A ticket works once, for 30 s, so one that is found in a log or a browser's history is worthless."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256

from msgspec import Struct

from heliosd.clock import Instant

from .identity import Identity

TICKET_SECONDS = 30.0
MAX_OF_ONE_TOKEN = 32
MAX_TICKETS = 10_000


@dataclass(frozen=True, slots=True)
class Ticket:
    """A new ticket and its end, in Unix seconds. The repr leaves the text out."""

    text: str = field(repr=False)
    expires_at: float


class _Kept(Struct, frozen=True):
    identity: Identity
    until_mono: float


class Tickets:
    """The tickets that have not been used yet: in memory, only their hashes.

    Their number is bounded, for one token and in all; beyond it the oldest is dropped.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, _Kept] = {}
        """Oldest first."""
        self._of_token: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._kept)

    def issue(self, identity: Identity, now: Instant) -> Ticket:
        """A ticket that authenticates as `identity` once, within 30 s and no longer than its token."""
        self._forget(now.mono)
        if self._of_token[identity.jti] >= MAX_OF_ONE_TOKEN:
            self._take(next(key for key, kept in self._kept.items() if kept.identity.jti == identity.jti))
        if len(self._kept) >= MAX_TICKETS:
            self._take(next(iter(self._kept)))
        text = secrets.token_urlsafe(24)
        self._kept[_hash(text)] = _Kept(identity, now.mono + TICKET_SECONDS)
        self._of_token[identity.jti] += 1
        return Ticket(text, min(now.wall + TICKET_SECONDS, identity.expires_at))

    def redeem(self, text: str, now_mono: float) -> Identity | None:
        """Whose ticket this is, and use it up; None for an unknown, used or expired one.

        The identity is as of the ticket's issue: the caller checks whether its token still holds.
        """
        self._forget(now_mono)
        kept = self._take(_hash(text))
        return None if kept is None else kept.identity

    def _forget(self, now_mono: float) -> None:
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if now_mono < kept.until_mono:
                return
            self._take(key)

    def _take(self, key: bytes) -> _Kept | None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._of_token[kept.identity.jti] -= 1
            if not self._of_token[kept.identity.jti]:
                del self._of_token[kept.identity.jti]
        return kept


def _hash(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
