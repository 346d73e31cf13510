"""Tokens that are revoked: refused at once, and on disk as soon as the disk takes it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from heliosd.clock import Instant
from heliosd.errors import StoreFull
from heliosd.store.changes import Save
from heliosd.store.deferred_changes import DeferredChanges

from .access import Access

RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


class RevokedTokens:
    """What is revoked holds from that moment. It is stored while `run` runs, by itself: a revoked token cannot ask
    again for its revocation."""

    def __init__(
        self, access: Access, save: Save, now: Callable[[], Instant], end: Callable[[str], None]
    ) -> None:
        """`end` closes the connections that stand on the token with a `jti`."""
        self._access = access
        self._deferred = DeferredChanges(save)
        self._now = now
        self._end = end
        self._added = trio.Event()

    def revoke(self, jti: str, expires_at: float) -> None:
        """The token with this `jti`, which ends at `expires_at` (Unix seconds), holds no more."""
        self._deferred.add(self._access.revoke(jti, expires_at, self._now()))
        self._end(jti)
        self._added.set()

    def hear(self, jti: str, expires_at: float) -> None:
        """Another daemon of the cluster has revoked this token."""
        if jti not in self._access.revoked:
            self.revoke(jti, expires_at)

    async def store(self) -> None:
        """Return once all that is revoked is on disk. Raises `StoreFull`; then `run` tries again."""
        await self._deferred.store()

    async def run(self) -> None:
        """Until cancelled: store what was revoked, and try again what the disk refuses."""
        refused = False
        while True:
            await self._added.wait()
            self._added = trio.Event()
            try:
                await self._deferred.store()
            except StoreFull as full:
                if not refused:
                    log.error("the store refuses revoked tokens; they are refused until a restart: %s", full)
                refused = True
                await trio.sleep(RETRY_SECONDS)
                self._added.set()
            else:
                if refused:
                    log.warning("the revoked tokens are stored")
                refused = False
