"""Which browser pages may use this daemon: the Origin rule.

A browser names the page that makes a request in `Origin` (RFC 6454; the Fetch standard, "serializing a request
origin"). The daemon's own pages and those of `server.allowed_origins` are allowed; a request without Origin is not
from a page. Host alone proves nothing: after DNS rebinding an attacker's page sends its own name as Host, so Host
must be a name that only this daemon can have.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from heliosd.config.addresses import DEFAULT_PORTS, ip_of, parse_host_header, parse_origin
from heliosd.config.model import Settings

from .problems import ForeignOrigin, ForgedWrite


def host_is_sound(host: str) -> bool:
    """Whether a Host header is a plain HOST or HOST:PORT, safe to repeat inside another header."""
    return parse_host_header(host) is not None


def origin_listed(origin: str, allowed: Sequence[str]) -> bool:
    """Whether `origin` is an entry of `allowed_origins`: same scheme, host, and port, where a scheme's default
    port may be left out. `null` only if it is listed as `null`."""
    if origin == "null":
        return "null" in allowed
    asked = parse_origin(origin)
    return asked is not None and any(asked == parse_origin(entry) for entry in allowed)


def origin_allowed(origin: str | None, host: str, allowed: Sequence[str], machine_name: str) -> bool:
    """Whether a request with this `Origin` (None: none was sent) and `Host` may be served.

    True without an Origin, for an entry of `allowed`, and for the daemon's own: host and port of Origin are those
    of Host, and Host is an IP address, localhost, `machine_name`, or the host of an entry of `allowed`. Several
    Origin headers joined by a comma are no origin at all.
    """
    return origin is None or origin_listed(origin, allowed) or origin_own(origin, host, allowed, machine_name)


def origin_own(origin: str, host: str, allowed: Sequence[str], machine_name: str) -> bool:
    """Whether `origin` is the daemon's own."""
    asked, own = parse_origin(origin), parse_host_header(host)
    if asked is None or own is None:
        return False
    # Behind a proxy that ends TLS the scheme here and there differ, so Host's missing port is the Origin's default.
    own_host, own_port = own
    if own_port is None:
        own_port = DEFAULT_PORTS[asked.scheme]
    if (asked.host, asked.port) != (own_host, own_port):
        return False
    return _means_only_us(own_host, allowed, machine_name)


def _means_only_us(host: str, allowed: Sequence[str], machine_name: str) -> bool:
    if host in {"localhost", machine_name.lower()} or ip_of(host) is not None:
        return True
    return any(entry is not None and entry.host == host for entry in map(parse_origin, allowed))


class OriginCheck:
    """The rule with the configuration in force and this machine's name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._machine_name = socket.gethostname()

    def check(self, origin: str | None, host: str) -> None:
        """Raise `ForeignOrigin` unless a request with this `Origin` (None: none was sent) and `Host` is allowed."""
        allowed = self._settings.current.server.allowed_origins
        if origin is not None and not origin_allowed(origin, host, allowed, self._machine_name):
            raise ForeignOrigin(origin, host)

    def check_own(self, origin: str | None, host: str, fetch_site: str) -> None:
        """Raise `ForgedWrite` unless a page of the daemon's own origin makes the request, as its `Origin` says or
        its `Sec-Fetch-Site`, which no page can set."""
        allowed = self._settings.current.server.allowed_origins
        if origin is not None and origin_own(origin, host, allowed, self._machine_name):
            return
        if fetch_site != "same-origin":
            raise ForgedWrite

    def is_listed(self, origin: str) -> bool:
        """Whether `origin` is in `server.allowed_origins`: its pages may read answers (CORS)."""
        return origin_listed(origin, self._settings.current.server.allowed_origins)


def joined(values: Sequence[str]) -> str | None:
    """All lines of a header as one value, so that a second line is never overlooked; None without any."""
    return ", ".join(values) if values else None
