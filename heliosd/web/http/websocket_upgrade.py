"""A valid WebSocket upgrade on `/ws/cluster`: the parts of its head that are used further on.

Upgrades as browsers and client libraries send them are read here in a third of the time that `request_head.py`
takes; anything unusual is left to `request_head.py`, which finds out what is wrong. When thousands reconnect, their
requests differ in key and target only: the other bytes are read once.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .request_head import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    WEBSOCKET_PATH,
    RequestHead,
    websocket_key,
)

_METHOD, _PATH, _VERSION = b"GET ", WEBSOCKET_PATH.encode("ascii"), b" HTTP/1.1"
_QUERY_BYTES = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("#"))
_FIELDS = re.compile(rb"((?:[A-Za-z][A-Za-z0-9-]*: [!-~](?:[ -~]*[!-~])?\r\n)+)\r\n")
_FIELD = re.compile(rb"([^:]+): ([^\r]+)\r\n")
_KEY = re.compile(rb"[0-9A-Za-z+/]{22}==")
_HOST = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_CONNECTION = {b"upgrade", b"keep-alive, upgrade"}
_KEY_NAME = b"Sec-WebSocket-Key: "
_KEY_BYTES = 24
_KNOWN_LIMIT = 64
_WITHOUT_SECRETS = frozenset(
    b"host upgrade connection origin user-agent accept accept-encoding accept-language cache-control pragma "
    b"sec-websocket-version sec-websocket-key sec-websocket-extensions "
    b"sec-fetch-dest sec-fetch-mode sec-fetch-site".split()
)
"""Headers that may be remembered: none of them carries a token."""
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
    cookies: tuple[str, ...] = ()
    """The Cookie headers."""


def upgrade_of(head: RequestHead) -> Upgrade | None:
    """The upgrade that a head asks for; None for any other request. Raises `BadHead` as `websocket_key`."""
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
        cookies=_texts(head.all(b"cookie")),
    )


def ordinary_upgrade(data: bytes) -> Upgrade | None:
    """The same from the first bytes of a connection, if they are exactly one ordinary upgrade request: each header
    once, and none that another program could read differently. None: use `request_head.py`."""
    if len(data) > MAX_HEAD_BYTES:
        return None
    line, _, rest = data.partition(b"\r\n")
    if not (line.startswith(_METHOD) and line.endswith(_VERSION)):
        return None
    target = line[len(_METHOD) : -len(_VERSION)]
    path, _, asked = target.partition(b"?")
    if path != _PATH or asked.translate(None, _QUERY_BYTES) or len(target) > MAX_TARGET_BYTES:
        return None
    query = asked.decode("ascii")
    before, _, after = rest.partition(_KEY_NAME)
    key, shape = after[:_KEY_BYTES], (before, after[_KEY_BYTES:])
    known = known_headers.get(shape)
    if known is not None and _KEY.fullmatch(key):
        return Upgrade(key, query, *known)
    match = _FIELDS.fullmatch(rest)
    if match is None:
        return None
    lines = _FIELD.findall(match[1])
    fields = {name.lower(): value for name, value in lines}
    if len(fields) != len(lines) or len(lines) > MAX_HEADERS:
        return None
    upgrade = _of_fields(fields, query)
    # The name that was found starts the line of the key.
    whole_line = before[-2:] in {b"", b"\r\n"} and shape[1][:2] == b"\r\n"
    if upgrade is not None and whole_line and fields.keys() <= _WITHOUT_SECRETS:
        if len(known_headers) >= _KNOWN_LIMIT:
            del known_headers[next(iter(known_headers))]
        known_headers[shape] = upgrade[2:]
    return upgrade


known_headers: dict[
    tuple[bytes, bytes], tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], str, tuple[str, ...]]
] = {}
"""Header lines of ordinary requests, before and after the key, and their `Upgrade` without key and query."""


def _of_fields(fields: dict[bytes, bytes], query: str) -> Upgrade | None:
    take = fields.get
    if (
        not _UNUSUAL.isdisjoint(fields)
        or take(b"upgrade", b"").lower() != b"websocket"
        or take(b"connection", b"").lower() not in _CONNECTION
        or take(b"sec-websocket-version") != b"13"
        or not _KEY.fullmatch(key := take(b"sec-websocket-key", b""))
        or not _HOST.fullmatch(host := take(b"host", b""))
    ):
        return None
    return Upgrade(
        key=key,
        query=query,
        host=host.decode("ascii"),
        origins=_once(take(b"origin")),
        authorization=_once(take(b"authorization")),
        subprotocols=_members(_once(take(b"sec-websocket-protocol"))),
        extensions=take(b"sec-websocket-extensions", b"").decode("ascii"),
        cookies=_once(take(b"cookie")),
    )


def _once(value: bytes | None) -> tuple[str, ...]:
    return () if value is None else (value.decode("ascii"),)


def _texts(values: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(value.decode("latin-1") for value in values)


def _members(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(","))
