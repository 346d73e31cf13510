"""A valid WebSocket upgrade on `/ws/cluster`: the parts of its head that are used further on.

When thousands reconnect, the requests of one program differ in the target and in a few headers only: the other
bytes are parsed once.
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
_KEY_LINE = re.compile(rb"\r\n(?:Sec-WebSocket-Key|sec-websocket-key): ([0-9A-Za-z+/]{22}==)(?=\r\n)")
_OWN = (b"Authorization", b"Cookie", b"Sec-WebSocket-Protocol")
"""Headers that are each client's own, as its key is. They may hold a token: their values are remembered nowhere."""
_OWN_NAMES = tuple(name.lower() for name in _OWN)
_OWN_LINE = re.compile(
    rb"\r\n(?:%b)(?=\r\n)"
    % b"|".join(rb"(?:%b|%b): ([!-~](?:[ -~]*[!-~])?)" % (name, name.lower()) for name in _OWN)
)
"""One of these in its usual form: the number of the group is that of the name."""
_NO_OWN: list[bytes | None] = [None] * len(_OWN)
_KEY_ONLY = (False,) * len(_OWN)
_KNOWN_LIMIT = 64
_REMEMBERED = frozenset(
    b"host upgrade connection origin user-agent accept accept-encoding accept-language cache-control pragma "
    b"sec-websocket-version sec-websocket-extensions sec-fetch-dest sec-fetch-mode sec-fetch-site".split()
)
"""Headers that may be remembered: none of them carries a token."""

known_forms: dict[tuple[bytes, tuple[bool, ...]], tuple[str, tuple[str, ...], str]] = {}
"""Host, Origin and extensions of upgrades, by their head without the request line, the key and the lines that are
each client's own, and which of these there are."""


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
    line = data[: data.find(b"\r\n")]
    target = line[len(_METHOD) : -len(_VERSION)]
    path, _, query = target.partition(b"?")
    if (
        not (line.startswith(_METHOD) and line.endswith(_VERSION) and path == _PATH)
        or query.translate(None, _QUERY_BYTES)
        or len(target) > MAX_TARGET_BYTES
        or len(data) > MAX_HEAD_BYTES
    ):
        return None
    rest, key = _without_key(data[len(line) :])
    own, form = _NO_OWN, (rest, _KEY_ONLY)
    known = known_forms.get(form)
    if known is None:
        rest, own = _without_own(rest)
        form = rest, tuple([value is not None for value in own])
        known = known_forms.get(form)
    authorization, cookie, protocol = own
    if known is not None and key:
        host, origins, extensions = known
        return Upgrade(
            key,
            query.decode("ascii"),
            host,
            origins,
            () if authorization is None else (authorization.decode("ascii"),),
            () if protocol is None else _members((protocol.decode("ascii"),)),
            extensions,
            () if cookie is None else (cookie.decode("ascii"),),
        )
    try:
        upgrade = upgrade_of(head := parse(data))
    except BadHead:
        return None
    found = {name for name, value in zip(_OWN_NAMES, own, strict=True) if value is not None}
    if key:
        found.add(b"sec-websocket-key")
    if upgrade is not None and all(
        name in _REMEMBERED or (name in found and len(values) == 1) for name, values in head.values.items()
    ):
        if len(known_forms) >= _KNOWN_LIMIT:
            del known_forms[next(iter(known_forms))]
        known_forms[form] = upgrade.host, upgrade.origins, upgrade.extensions
    return upgrade


def _without_key(lines: bytes) -> tuple[bytes, bytes]:
    """The lines without the key's, and the key; b"" if it is not there, or is not in its usual form."""
    found = _KEY_LINE.search(lines)
    # Behind an empty line it would be no header.
    if found is None or lines.endswith(b"\r\n", 0, found.start()):
        return lines, b""
    return lines[: found.start()] + lines[found.end() :], found[1]


def _without_own(lines: bytes) -> tuple[bytes, list[bytes | None]]:
    """The lines without the first one of each of `_OWN`, and the values of those; None for one that is not there,
    or is not in its usual form."""
    own: list[bytes | None] = [None] * len(_OWN)
    rest, begin = b"", 0
    for line in _OWN_LINE.finditer(lines):
        number = line.lastindex or 0
        end = line.start()
        # Behind an empty line it would be no header.
        if own[number - 1] is None and not lines.endswith(b"\r\n", 0, end):
            own[number - 1] = line[number]
            rest += lines[begin:end]
            begin = line.end()
    return rest + lines[begin:], own


def _texts(values: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(value.decode("latin-1") for value in values)


def _members(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(","))
