"""A WebSocket upgrade on `/ws/cluster`: what is left of a request's head once it has been found valid.

The ordinary one, as browsers and client libraries send it, is read here at a third of what `head.py` takes for any
request; whatever is unusual about a head leaves it to `head.py`, which says what is wrong with it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .head import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES, WEBSOCKET_PATH, Head, websocket_key

_ORDINARY = re.compile(
    rb"GET /ws/cluster(?:\?([!-\"$-~]*))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z][A-Za-z0-9-]*: [!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
_FIELD = re.compile(rb"([^:]+): ([^\r]+)\r\n")
_KEY = re.compile(rb"[0-9A-Za-z+/]{22}==")
_HOST = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_CONNECTION = {b"upgrade", b"keep-alive, upgrade"}
_UNUSUAL = {b"content-length", b"transfer-encoding", b"http2-settings", b"expect", b"te", b"trailer"}


class Upgrade(NamedTuple):
    """A valid upgrade request (RFC 6455 section 4.2.1)."""

    key: bytes
    query: str
    """The target after `?`, not decoded."""
    host: str
    origins: tuple[str, ...]
    authorization: tuple[str, ...]
    subprotocols: tuple[str, ...]
    """As offered, in their order."""
    extensions: str
    """All offers, as one comma list."""


def upgrade_of(head: Head) -> Upgrade | None:
    """What a request for an upgrade says; None for any other request. Raises `BadHead` as `websocket_key`."""
    key = websocket_key(head)
    if key is None:
        return None
    return Upgrade(
        key=key,
        query=head.query,
        host=(head.header(b"host") or b"").decode("latin-1"),
        origins=_texts(head.all(b"origin")),
        authorization=_texts(head.all(b"authorization")),
        subprotocols=_members(_texts(head.all(b"sec-websocket-protocol"))),
        extensions=", ".join(_texts(head.all(b"sec-websocket-extensions"))),
    )


def ordinary_upgrade(data: bytes) -> Upgrade | None:
    """The same from the first bytes of a connection, if they are exactly one ordinary upgrade request.

    None says nothing but that they have to be read by `head.py`. Every header stands once in it, and none that
    another program could read differently.
    """
    if len(data) > MAX_HEAD_BYTES:
        return None
    match = _ORDINARY.fullmatch(data)
    if match is None or len(WEBSOCKET_PATH) + 1 + len(match[1] or b"") > MAX_TARGET_BYTES:
        return None
    lines = _FIELD.findall(match[2])
    fields: dict[bytes, bytes] = {name.lower(): value for name, value in lines}
    take = fields.get
    if (
        len(fields) != len(lines)
        or len(lines) > MAX_HEADERS
        or not _UNUSUAL.isdisjoint(fields)
        or take(b"upgrade", b"").lower() != b"websocket"
        or take(b"connection", b"").lower() not in _CONNECTION
        or take(b"sec-websocket-version") != b"13"
        or not _KEY.fullmatch(key := take(b"sec-websocket-key", b""))
        or not _HOST.fullmatch(host := take(b"host", b""))
    ):
        return None
    return Upgrade(
        key=key,
        query=(match[1] or b"").decode("ascii"),
        host=host.decode("ascii"),
        origins=_once(take(b"origin")),
        authorization=_once(take(b"authorization")),
        subprotocols=_members(_once(take(b"sec-websocket-protocol"))),
        extensions=take(b"sec-websocket-extensions", b"").decode("ascii"),
    )


def _once(value: bytes | None) -> tuple[str, ...]:
    return () if value is None else (value.decode("ascii"),)


def _texts(values: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(value.decode("latin-1") for value in values)


def _members(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(","))
