"""Which browser pages may speak to this daemon: the Origin rule, as a pure function.

A browser names the page that makes a request in `Origin` (RFC 6454; the Fetch standard, "serializing a request
origin"). The daemon's own pages and those of `server.allowed_origins` may speak; a request without Origin is not
from a page. Host alone proves nothing: after DNS rebinding an attacker's page sends its own name as Host, so
Host must be a name that only this daemon can mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple

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
