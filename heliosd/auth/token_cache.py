"""Remembers verified tokens: thousands of clients may reconnect at once with tokens that were seen before."""

from __future__ import annotations

import hashlib
from operator import is_

from .identity import Identity

KEPT = 8192


class TokenCache:
    """The identities of verified tokens, by their exact text, while they are verified against the same objects.

    Does not know which tokens are revoked.
    """

    def __init__(self) -> None:
        self._against: tuple[object, ...] = ()
        self._known: dict[bytes, tuple[float, Identity]] = {}

    def find(self, digest: bytes, now: float, against: tuple[object, ...]) -> Identity | None:
        """Whose the token of this digest was when verified against the very same objects; None: verify it.

        None also from its end on, and before the moment it was verified, since a clock may be set back.
        """
        known = self._known.get(digest)
        if known is None or not _same(against, self._against):
            return None
        since, identity = known
        return identity if since <= now < identity.expires_at else None

    def keep(self, digest: bytes, now: float, identity: Identity, against: tuple[object, ...]) -> None:
        """Remember that the token of this digest was verified at `now` against these immutable objects."""
        if not _same(against, self._against):
            self._against = against
            self._known.clear()
        self._known[digest] = now, identity
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]


def _same(these: tuple[object, ...], those: tuple[object, ...]) -> bool:
    return len(these) == len(those) and all(map(is_, these, those))


def digest_of(token: str) -> bytes:
    """What a token is known by here."""
    # Tokens are secrets; their digests are not.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
