"""The client of a request that a trusted proxy forwards: X-Forwarded-For, -Proto, -Host, or Forwarded (RFC 7239).

Only the headers of a peer in `server.trusted_proxies` are believed. A list is read from its end, where the nearest
proxy wrote, and no further than to the first address that is not trusted: what stands before it may be forged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from .origin import host_is_sound

_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)")
_HIDDEN = re.compile(r"unknown(?::\w+)?|_[A-Za-z0-9._-]+(?::\w+)?", re.IGNORECASE)
_PAIR = re.compile(r'[ \t]*(?:([a-z]+)=(?:([^\s",;=]+)|"([^"\\]*)")[ \t]*)?(;|,|$)', re.IGNORECASE)
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Forwarded(NamedTuple):
    """A request as the client sent it to the first trusted proxy. None: the proxy does not say."""

    client: tuple[str, int] | None
    """IP address and port; 0: no port is named."""
    scheme: str | None
    host: str | None


class TrustedProxies:
    """The configured proxies. Raises ValueError for a list that is not of networks and `unix`."""

    def __init__(self, proxies: Iterable[str]) -> None:
        listed = tuple(proxies)
        self._unix = "unix" in listed
        self._networks = [ip_network(each) for each in listed if each != "unix"]

    def trusts(self, host: str) -> bool:
        """Whether `host`, an IP address or `unix`, is a trusted proxy."""
        if host == "unix":
            return self._unix
        return bool(self._networks) and any(ip_address(host) in network for network in self._networks)

    def read(self, headers: Mapping[str, str]) -> Forwarded:
        """What a trusted peer's headers say: names in lower case, lines of one name joined by commas.

        Raises ValueError for what is malformed or contradictory: a proxy that writes one kind of header may pass
        on the other one as its client sent it.
        """
        standard = _elements(headers.get("forwarded", ""))
        chain = [element.get("for", "unknown") for element in standard]
        client = self._client(chain)
        last = standard[-1] if standard else {}
        if "x-forwarded-for" in headers:
            also = self._client(headers["x-forwarded-for"].split(","))
            if standard and (client is None or also is None or client[0] != also[0]):
                raise ValueError("Forwarded and X-Forwarded-For differ")
            client = also
        scheme = _last(headers, "x-forwarded-proto", last.get("proto"))
        host = _last(headers, "x-forwarded-host", last.get("host"))
        if scheme is not None and scheme.lower() not in _SCHEMES:
            raise ValueError("Malformed scheme of a proxy")
        if host is not None and not host_is_sound(host):
            raise ValueError("Malformed host of a proxy")
        return Forwarded(client, _SCHEMES[scheme.lower()] if scheme else None, host)

    def _client(self, chain: Iterable[str]) -> tuple[str, int] | None:
        client = None
        for entry in reversed(list(chain)):
            text = entry.strip()
            if _HIDDEN.fullmatch(text):
                break
            client = _address(text)
            if not self.trusts(client[0]):
                break
        return client


def _address(text: str) -> tuple[str, int]:
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError("Malformed address of a proxy")
    v6, v6_port, v4, v4_port, bare = match.groups()
    try:
        address = ip_address(v6 or v4 or bare)
    except ValueError:
        raise ValueError("Malformed address of a proxy") from None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address), int(v6_port or v4_port or 0)


def _elements(text: str) -> list[dict[str, str]]:
    """The elements of a Forwarded header, each with its parameters by name."""
    elements: list[dict[str, str]] = [{}]
    at = 0
    while text and at <= len(text):
        match = _PAIR.match(text, at)
        if match is None:
            raise ValueError("Malformed Forwarded")
        name, token, quoted, end = match.groups()
        if name is not None:
            if name.lower() in elements[-1]:
                raise ValueError("Malformed Forwarded")
            elements[-1][name.lower()] = token or quoted or ""
        if end == ",":
            elements.append({})
        at = match.end() if end else len(text) + 1
    return [element for element in elements if element]


def _last(headers: Mapping[str, str], name: str, default: str | None) -> str | None:
    return headers[name].rpartition(",")[2].strip() if name in headers else default
