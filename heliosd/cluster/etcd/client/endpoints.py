"""Which of etcd's endpoints is asked next. Pure: `now` is in seconds of a clock that never goes back.

The endpoint that answered last is kept until it fails. One that failed is asked last until its pause is over;
pauses grow, and are random, so that the daemons of a cluster do not return all at once. All requests share them.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from msgspec import Struct

from heliosd.backoff import Backoff
from heliosd.config.addresses import ip_of, is_loopback, split_url

from .identity import ClusterIdentity

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
MAX_LEARNED = 32


class EndpointHealth(Struct, frozen=True):
    """What is known of one endpoint. `reason` is why it failed last, "" while it answers."""

    url: str
    configured: bool
    failures: int
    """In a row."""
    reason: str


@dataclass(slots=True)
class _KnownEndpoint:
    backoff: Backoff
    paused_until: float = 0.0
    reason: str = ""


class Endpoints:
    """The configured endpoints, which are never forgotten, and those learned from the member list."""

    def __init__(
        self, configured: Sequence[str], rng: random.Random, identity: ClusterIdentity | None = None
    ) -> None:
        self._identity = identity or ClusterIdentity()
        self._configured = tuple(dict.fromkeys(filter(None, map(normal, configured))))
        self._rng = rng
        self._known = {url: self._new() for url in self._configured}
        self._current = ""
        self._closed: frozenset[str] = frozenset()

    def learn(self, urls: Iterable[str]) -> None:
        """Replace the learned endpoints by these client URLs of members, without unusable ones.

        Unusable are an unspecified address (0.0.0.0), a loopback address unless one is configured, and plain http
        if https is configured: a member list must not cause a password to be sent unencrypted.
        """
        fit = [url for url in dict.fromkeys(map(normal, urls)) if url and self._usable(url)]
        keep = [*self._configured, *[url for url in fit if url not in self._configured][:MAX_LEARNED]]
        for url in self._known.keys() - set(keep):
            self._identity.lost(url)
        self._known = {url: self._known.get(url) or self._new() for url in keep}
        if self._current not in self._known:
            self._current = ""

    def close(self, urls: Iterable[str]) -> None:
        """Ask exactly these endpoints nothing, until the next call."""
        self._closed = frozenset(map(normal, urls))

    def order(self, now: float) -> tuple[str, ...]:
        """All endpoints that may be asked, the best first."""

        def rank(item: tuple[str, _KnownEndpoint]) -> tuple[float, int, bool]:
            url, known = item
            paused = known.paused_until if known.paused_until > now else 0.0
            return paused, known.backoff.failures, url != self._current

        shut = self._closed | self._identity.foreign().keys()
        return tuple(url for url, _ in sorted(self._known.items(), key=rank) if url not in shut)

    def among(self, url: str) -> str:
        """The known endpoint that this URL means, however it is written; "" if none."""
        return normal(url) if normal(url) in self._known.keys() - self._closed else ""

    def answered(self, url: str) -> None:
        """It answered a request: ask it first from now on."""
        if url in self._known:
            self._known[url] = self._new()
            self._current = url

    def alive(self, url: str, now: float) -> None:
        """It answered a status, which does not show that it can serve requests: a pause goes on."""
        if url in self._known and self._known[url].paused_until <= now:
            self._known[url] = self._new()

    def failed(self, url: str, now: float, reason: str) -> None:
        """It did not answer, or cannot serve. During its pause a failure is recorded and not counted again."""
        known = self._known.get(url)
        if known is None:
            return
        known.reason = reason
        self._identity.lost(url)
        if url == self._current:
            self._current = ""
        if known.paused_until <= now:
            known.paused_until = now + known.backoff.seconds()

    def urls(self) -> Collection[str]:
        """All known endpoints, the configured ones first."""
        return self._known.keys()

    def health(self) -> tuple[EndpointHealth, ...]:
        """The configured endpoints first."""
        return tuple(
            EndpointHealth(url, url in self._configured, known.backoff.failures, known.reason)
            for url, known in self._known.items()
        )

    def _new(self) -> _KnownEndpoint:
        return _KnownEndpoint(Backoff(self._rng, first=FIRST_PAUSE_SECONDS, longest=LONGEST_PAUSE_SECONDS))

    def _usable(self, url: str) -> bool:
        secure = any(each.startswith("https:") for each in self._configured)
        local = any(is_loopback(_host(each)) for each in self._configured)
        if _is_unspecified(url) or (secure and not url.startswith("https:")):
            return False
        return local or not is_loopback(_host(url))


@lru_cache(maxsize=256)  # each poll asks for it several times
def normal(url: str) -> str:
    """The normal form of an endpoint: no slash at its end, scheme and host in lower case. "" if it is no URL."""
    try:
        parts = split_url(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}" if url.isascii() else ""


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _is_unspecified(url: str) -> bool:
    address = ip_of(_host(url))
    return address is not None and address.is_unspecified
