"""The outside issuer's keys: fetched from `auth.jwks_url` when a token needs them, kept, and fetched again.

Nothing else is ever fetched, whatever a token says: no other URL, no redirect. Tokens with an unknown `kid` cause
at most one fetch in `MIN_INTERVAL_SECONDS`, however many they are. Tokens are not verified here.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import structlog
import trio

from heliosd.auth.access import Access
from heliosd.auth.issuer_keys import IssuerKeys
from heliosd.config.model import Settings
from heliosd.errors import IssuerUnreachable, KeysNotFetched
from heliosd.on_demand import OnDemand

FETCH_SECONDS = 5.0
MIN_INTERVAL_SECONDS = 10.0
"""From the end of one fetch to the next. A key that the issuer has just begun to use may be unknown for so long."""
FRESH_SECONDS = 300.0
"""Keys older than this are fetched anew when the next token comes, so that a withdrawn key stops counting."""
KEPT_SECONDS = 86_400.0
"""While the issuer cannot be reached, its keys count for so long."""
MAX_WAITING = 100
"""Requests that wait for one fetch; further ones are refused at once."""

log = structlog.get_logger(__name__)


def _load() -> Callable[[str], Awaitable[IssuerKeys]]:
    from .jwks_request import fetch_keys  # noqa: PLC0415

    return fetch_keys


_fetch_keys = OnDemand(_load)


class ExternalIssuer:
    """Keeps `Access.outside_keys` up to date: fetches when a key is wanted."""

    def __init__(self, access: Access, settings: Settings) -> None:
        self._access = access
        self._settings = settings
        self._url = ""
        self._fetched_at = -math.inf
        self._next_fetch = -math.inf
        self._failed = False
        self._waiting = 0
        self._wanted = trio.Event()
        self._done = trio.Event()

    async def fetch_key(self, kid: str) -> None:
        """Make the key of that name known, if the issuer publishes it: fetch unless it is known and fresh.

        Raises `IssuerUnreachable` if it is not known and cannot be fetched now. `run` must be running.
        """
        if kid:
            await self._look_for(kid)
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Fetch on demand, until cancelled. A request that ends early does not cancel the fetch it waits for."""
        while True:
            await self._wanted.wait()
            while not await self._fetch():
                pass
            self._wanted = trio.Event()
            done, self._done = self._done, trio.Event()
            done.set()

    async def _look_for(self, kid: str) -> None:
        self._discard_outdated()
        if kid in self._access.outside_keys.by_kid and (self._is_fresh() or self._wanted.is_set()):
            return
        if self._wanted.is_set() or trio.current_time() >= self._next_fetch:
            if self._waiting >= MAX_WAITING:
                raise IssuerUnreachable(1)
            self._wanted.set()
            self._waiting += 1
            try:
                await self._done.wait()
            finally:
                self._waiting -= 1
        if self._failed and kid not in self._access.outside_keys.by_kid:
            raise IssuerUnreachable(max(1, self._next_fetch - trio.current_time()))

    def _discard_outdated(self) -> None:
        if self._url != self._settings.current.auth.jwks_url:
            self._url = self._settings.current.auth.jwks_url
            self._fetched_at = self._next_fetch = -math.inf
            self._failed = False
        if self._access.outside_keys.by_kid and self._fetched_at + KEPT_SECONDS < trio.current_time():
            self._access.outside_keys = IssuerKeys()

    def _is_fresh(self) -> bool:
        return trio.current_time() < self._fetched_at + FRESH_SECONDS

    async def _fetch(self) -> bool:
        """Fetch from the configured URL, and record what came of it.

        False: nothing is recorded, since a reload meanwhile configured another URL, which is still to be fetched.
        """
        fetch_keys = await _fetch_keys.get()
        self._discard_outdated()
        url = self._url
        if not url:
            return True
        keys, reason = None, ""
        try:
            with trio.fail_after(FETCH_SECONDS):
                keys = await fetch_keys(url)
        except trio.TooSlowError:
            reason = f"no answer in {FETCH_SECONDS:g} s"
        except KeysNotFetched as error:
            reason = str(error)
        if url != self._settings.current.auth.jwks_url:
            return False
        self._failed = keys is None
        self._next_fetch = trio.current_time() + MIN_INTERVAL_SECONDS
        if keys is None:
            log.warning("the outside issuer's keys could not be fetched", url=url, reason=reason)
        else:
            self._access.outside_keys = keys
            self._fetched_at = trio.current_time()
            log.info("fetched the outside issuer's keys", url=url, keys=len(keys.by_kid))
        return True
