"""Tokens that have been verified, remembered: thousands of clients may come back at once with tokens we know."""

from __future__ import annotations

import hashlib
from operator import is_

from .identity import Identity

KEPT = 8192


class TokenCache:
    """Whom sound tokens stand for, by their exact text, for as long as they are verified against the same things.

    Whether a token was revoked is not in here.
    """

    def __init__(self) -> None:
        self._against: tuple[object, ...] = ()
        self._known: dict[bytes, tuple[float, Identity]] = {}

    def find(self, token: str, now: float, against: tuple[object, ...]) -> Identity | None:
        """Whom `token` stood for when it was verified against the very same objects; None: verify it.

        None as well from its end on, and before the moment of verifying: a clock may be set back.
        """
        known = self._known.get(_digest(token)) if _same(against, self._against) else None
        return known[1] if known is not None and known[0] <= now < known[1].expires_at else None

    def keep(self, token: str, now: float, identity: Identity, against: tuple[object, ...]) -> None:
        """`token` was verified at `now` against these objects, none of which ever changes in itself."""
        if not _same(against, self._against):
            self._against = against
            self._known.clear()
        self._known[_digest(token)] = now, identity
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]


def _same(these: tuple[object, ...], those: tuple[object, ...]) -> bool:
    return len(these) == len(those) and all(map(is_, these, those))


def _digest(token: str) -> bytes:
    # Tokens are secrets, and what stands for one here does not let anyone in.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
