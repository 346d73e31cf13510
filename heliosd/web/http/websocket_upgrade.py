"""A valid WebSocket upgrade on `/ws/cluster`: the parts of its head that are used further on.

When thousands reconnect, their requests differ in key and target only: the other bytes are parsed once.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .request_head import (
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    WEBSOCKET_PATH,
    BadHead,
    RequestHead,
    parse,
    websocket_key,
)

_METHOD, _PATH, _VERSION = b"GET ", WEBSOCKET_PATH.encode("ascii"), b" HTTP/1.1"
_QUERY_BYTES = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("#"))
_KEY = re.compile(rb"[0-9A-Za-z+/]{22}==")
_KEY_NAME = b"Sec-WebSocket-Key: "
_KEY_BYTES = 24
_KNOWN_LIMIT = 64
_WITHOUT_SECRETS = frozenset(
    b"host upgrade connection origin user-agent accept accept-encoding accept-language cache-control pragma "
    b"sec-websocket-version sec-websocket-key sec-websocket-extensions "
    b"sec-fetch-dest sec-fetch-mode sec-fetch-site".split()
)
"""Headers that may be remembered: none of them carries a token."""

known_headers: dict[
    tuple[bytes, bytes], tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], str, tuple[str, ...]]
] = {}
"""Header lines of upgrades, before and after the key, and their `Upgrade` without key and query."""


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
    """The upgrade that the first bytes of a connection are, exactly and as a whole. None: anything else."""
    line, _, rest = data.partition(b"\r\n")
    target = line[len(_METHOD) : -len(_VERSION)]
    path, _, query = target.partition(b"?")
    if (
        not (line.startswith(_METHOD) and line.endswith(_VERSION) and path == _PATH)
        or query.translate(None, _QUERY_BYTES)
        or len(target) > MAX_TARGET_BYTES
        or len(data) > MAX_HEAD_BYTES
    ):
        return None
    before, _, behind = rest.partition(_KEY_NAME)
    key, after = behind[:_KEY_BYTES], behind[_KEY_BYTES:]
    known = known_headers.get((before, after))
    if known is not None and _KEY.fullmatch(key):
        return Upgrade(key, query.decode("ascii"), *known)
    try:
        upgrade = upgrade_of(head := parse(data))
    except BadHead:
        return None
    # The name that was found starts the line of the key, which ends behind the key.
    whole_line = before[-2:] in {b"", b"\r\n"} and after[:2] == b"\r\n"
    if upgrade is not None and whole_line and {name for name, _ in head.headers} <= _WITHOUT_SECRETS:
        if len(known_headers) >= _KNOWN_LIMIT:
            del known_headers[next(iter(known_headers))]
        known_headers[before, after] = upgrade[2:]
    return upgrade


def _texts(values: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(value.decode("latin-1") for value in values)


def _members(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(","))
