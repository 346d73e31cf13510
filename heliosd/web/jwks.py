"""The outside issuer's keys: fetched from `auth.jwks_url` when a token needs them, kept, and fetched again.

Nothing else is ever fetched, whatever a token says: no other URL, no redirect. A `kid` that is not known can cause
one fetch in `MIN_INTERVAL_SECONDS`, however many such tokens come. Verifying is not done here.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio
from jwt import PyJWKClient, PyJWKClientConnectionError, PyJWTError

from heliosd.auth.access import Access
from heliosd.auth.external_issuer import IssuerKeys, kid_of
from heliosd.config.model import Settings
from heliosd.errors import IssuerUnreachable, Unauthenticated

FETCH_SECONDS = 5.0
MIN_INTERVAL_SECONDS = 10.0
"""From the end of one fetch to the next. A key that the issuer has just begun to use may be unknown for so long."""
FRESH_SECONDS = 300.0
"""Keys older than this are fetched anew when the next token comes: so one that was taken away stops counting."""
KEPT_SECONDS = 86_400.0
"""While the issuer cannot be reached its keys count for so long."""
MAX_ANSWER_BYTES = 256 * 1024
MAX_WAITING = 100
"""Requests that wait for one fetch; more are sent away at once."""

log = structlog.get_logger(__name__)


class ExternalIssuer:
    """Sees to it that the key of an outside token is known before `Access.identify` is asked about the token."""

    def __init__(self, access: Access, settings: Settings) -> None:
        self._access = access
        self._settings = settings
        self._url = ""
        self._fetched_at = -math.inf
        self._next_fetch = -math.inf
        self._failed = False
        self._waiting = 0
        self._asked = trio.Event()
        self._answered = trio.Event()
        # Of its own: a thread that a dead server holds up must not take one from the logins.
        self._threads = trio.CapacityLimiter(2)

    async def prepare(self, carried: Iterable[str]) -> None:
        """Fetch what these tokens need, if any of them says that it is of the outside issuer.

        Returns at once for our own tokens and for known keys. Whether a token holds is left to `identify`. Raises
        `IssuerUnreachable` if the key is not known and cannot be had at the moment. `run` must be running.
        """
        for token in carried:
            if self._access.is_outside(token):
                with suppress(Unauthenticated):
                    await self._look_for(kid_of(token))
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Fetch when asked, until cancelled. No request's end cuts a fetch short."""
        while True:
            await self._asked.wait()
            await self._fetch(self._settings.current.auth.jwks_url)
            self._asked = trio.Event()
            answered, self._answered = self._answered, trio.Event()
            answered.set()

    async def _look_for(self, kid: str) -> None:
        if not kid:
            return
        self._forget_what_does_not_count()
        if kid in self._access.outside_keys.by_kid and (self._is_fresh() or self._asked.is_set()):
            return
        if self._asked.is_set() or trio.current_time() >= self._next_fetch:
            if self._waiting >= MAX_WAITING:
                raise IssuerUnreachable(1)
            self._asked.set()
            self._waiting += 1
            try:
                await self._answered.wait()
            finally:
                self._waiting -= 1
        if self._failed and kid not in self._access.outside_keys.by_kid:
            raise IssuerUnreachable(max(1, self._next_fetch - trio.current_time()))

    def _forget_what_does_not_count(self) -> None:
        if self._url != self._settings.current.auth.jwks_url:
            self._url = self._settings.current.auth.jwks_url
            self._fetched_at = self._next_fetch = -math.inf
            self._failed = False
        if self._access.outside_keys.by_kid and self._fetched_at + KEPT_SECONDS < trio.current_time():
            self._access.outside_keys = IssuerKeys()

    def _is_fresh(self) -> bool:
        return trio.current_time() < self._fetched_at + FRESH_SECONDS

    async def _fetch(self, url: str) -> None:
        client = _BoundedClient(url)
        reason = ""
        try:
            with trio.fail_after(FETCH_SECONDS):
                keys = await trio.to_thread.run_sync(
                    client.get_signing_keys, limiter=self._threads, abandon_on_cancel=True
                )
            self._access.outside_keys = IssuerKeys.of(url, keys)
            self._fetched_at = trio.current_time()
        except trio.TooSlowError:
            reason = f"no answer in {FETCH_SECONDS:g} s"
        except (OSError, HTTPException, PyJWTError, ValueError, RecursionError) as error:
            reason = str(error) or type(error).__name__
        finally:
            client.hang_up()
        self._failed = bool(reason)
        self._next_fetch = trio.current_time() + MIN_INTERVAL_SECONDS
        if reason:
            log.warning("the outside issuer's keys could not be fetched", url=url, reason=reason)
        else:
            log.info("fetched the outside issuer's keys", url=url, keys=len(self._access.outside_keys.by_kid))


class _BoundedClient(PyJWKClient):
    """PyJWT's client with a way to fetch that has bounds: in size, and in time by `hang_up` from another thread."""

    def __init__(self, url: str) -> None:
        super().__init__(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        self._socket: socket.socket | None = None

    def fetch_data(self) -> Any:
        """The decoded answer. Raises OSError, HTTPException, PyJWTError or ValueError."""
        url = urlsplit(self.uri)
        kind = HTTPSConnection if url.scheme.lower() == "https" else HTTPConnection
        connection = kind(url.hostname or "", url.port, timeout=self.timeout)
        try:
            connection.connect()
            self._socket = connection.sock
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("GET", target, headers={"Accept": "application/json", "User-Agent": "heliosd"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise PyJWKClientConnectionError(f"answered with status {answer.status}")
            content = answer.read(MAX_ANSWER_BYTES + 1)
        finally:
            connection.close()
        if len(content) > MAX_ANSWER_BYTES:
            raise PyJWKClientConnectionError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        return self._as_jwk_set_payload(json.loads(content))

    def hang_up(self) -> None:
        """End a fetch that another thread is still at. Harmless after its end."""
        if self._socket is not None:
            with suppress(OSError):
                # Not SSLSocket's own, which changes what the other thread is reading from.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
