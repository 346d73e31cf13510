"""Which browser pages may use this daemon: the Origin rule.

A browser names the page that makes a request in `Origin` (RFC 6454; the Fetch standard, "serializing a request
origin"). The daemon's own pages and those of `server.allowed_origins` are allowed; a request without Origin is not
from a page. Host alone proves nothing: after DNS rebinding an attacker's page sends its own name as Host, so Host
must be a name that only this daemon can have.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple

from heliosd.config.model import Settings

from .problems import ForeignOrigin

_AUTHORITY = r"(?P<host>[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
_HOST = re.compile(_AUTHORITY, re.ASCII)
_ORIGIN = re.compile(rf"(?P<scheme>https?)://{_AUTHORITY}", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int


def _parse(origin: str) -> _Origin | None:
    found = _ORIGIN.fullmatch(origin.lower()) if origin.isascii() else None
    if found is None:
        return None
    scheme = found["scheme"]
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS[scheme]
    return _Origin(scheme, found["host"], port)


def _read_host(host: str) -> re.Match[str] | None:
    return _HOST.fullmatch(host.lower()) if host.isascii() else None


def host_is_sound(host: str) -> bool:
    """Whether a Host header is a plain HOST or HOST:PORT, safe to repeat inside another header."""
    return _read_host(host) is not None


def origin_listed(origin: str, allowed: Sequence[str]) -> bool:
    """Whether `origin` is an entry of `allowed_origins`: same scheme, host, and port, where a scheme's default
    port may be left out. `null` only if it is listed as `null`."""
    if origin == "null":
        return "null" in allowed
    asked = _parse(origin)
    return asked is not None and any(asked == _parse(entry) for entry in allowed)


def origin_allowed(origin: str | None, host: str, allowed: Sequence[str], machine_name: str) -> bool:
    """Whether a request with this `Origin` (None: none was sent) and `Host` may be served.

    True without an Origin, for an entry of `allowed`, and for the daemon's own: host and port of Origin are those
    of Host, and Host is an IP address, localhost, `machine_name`, or the host of an entry of `allowed`. Several
    Origin headers joined by a comma are no origin at all.
    """
    if origin is None:
        return True
    if origin_listed(origin, allowed):
        return True
    asked, own = _parse(origin), _read_host(host)
    if asked is None or own is None:
        return False
    # Behind a proxy that ends TLS the scheme here and there differ, so Host's missing port is the Origin's default.
    own_port = int(own["port"]) if own["port"] else _DEFAULT_PORTS[asked.scheme]
    if (asked.host, asked.port) != (own["host"], own_port):
        return False
    return _means_only_us(own["host"], allowed, machine_name)


def _means_only_us(host: str, allowed: Sequence[str], machine_name: str) -> bool:
    if host in {"localhost", machine_name.lower()}:
        return True
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return any(entry is not None and entry.host == host for entry in map(_parse, allowed))
    return True


class OriginCheck:
    """The rule with the configuration in force and this machine's name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._machine_name = socket.gethostname()

    def check(self, origin: str | None, host: str) -> None:
        """Raise `ForeignOrigin` unless a request with this `Origin` (None: none was sent) and `Host` is allowed."""
        if not origin_allowed(
            origin, host, self._settings.current.server.allowed_origins, self._machine_name
        ):
            raise ForeignOrigin("Origin not allowed")

    def is_listed(self, origin: str) -> bool:
        """Whether `origin` stands in `server.allowed_origins`: its pages may read answers (CORS)."""
        return origin_listed(origin, self._settings.current.server.allowed_origins)


def joined(values: Sequence[str]) -> str | None:
    """All lines of a header as one value, so that a second line is never overlooked; None without any."""
    return ", ".join(values) if values else None
