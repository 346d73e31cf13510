"""The head of a request, read strictly: what two programs could read differently is refused.

The grammar is that of RFC 9112 (HTTP/1.1) without what it only tolerates: no bare LF, no line folding. Nothing here
does IO; `HeadBuffer` takes bytes in any pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from msgspec import Struct

MAX_HEAD_BYTES = 16 * 1024
MAX_TARGET_BYTES = 8 * 1024
MAX_HEADERS = 100
MAX_BODY_BYTES = 1024 * 1024
MAX_REQUEST_LINE_BYTES = MAX_TARGET_BYTES + 64
WEBSOCKET_PATH = "/ws/cluster"

_END = b"\r\n\r\n"
# Never part of a valid head: a lone LF, a lone CR (one at the end may still get its LF), control characters.
_NEVER = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\r\n"))
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Z-]{1,32}) ([^ ]+) HTTP/([0-9])\.([0-9])")
_TARGET = re.compile(rb"/[!-\"$-~]*")
_ABSOLUTE = re.compile(rb"(?i:https?)://([0-9A-Za-z.:\[\]_~-]+)((?:[/?][^ ]*)?)")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_HEADERS = re.compile(rb"(?m)^" + HEADER.pattern + rb"\r\n")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]+)(?::[0-9]{0,5})?")
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,20}")
_WEBSOCKET_KEY = re.compile(rb"[0-9A-Za-z+/]{22}==")


Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class BadHead(Exception):
    """A request that must be refused: respond with `status`, `reason` and `headers`, then close. The reason quotes
    nothing that was sent."""

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers


class RequestHead(Struct, frozen=True):
    """A request line and its headers, valid by this module's rules."""

    method: str
    target: bytes
    """`/path?query`, visible ASCII, as sent; of an absolute form what stands behind the authority."""
    version: str
    """`1.1`, also for later minor versions, or `1.0`."""
    headers: Headers
    """In the order sent; names in lower case, values without surrounding blanks."""
    values: dict[bytes, list[bytes]]
    """The same by name."""
    body_bytes: int | None = 0
    """How many bytes of body follow, at most 1 MiB; None: chunks."""
    scheme: str = "http"
    """`http` or `https`."""
    keep_alive: bool = True
    """Whether another request may follow on this connection."""

    @property
    def path(self) -> str:
        """The target before `?`, not decoded."""
        return self.target.partition(b"?")[0].decode("ascii")

    @property
    def query(self) -> str:
        """The target after `?`, not decoded; empty without one."""
        return self.target.partition(b"?")[2].decode("ascii")

    def all(self, name: bytes) -> tuple[bytes, ...]:
        """Every value of the header `name` (lower case), in the order sent."""
        return tuple(self.values.get(name, ()))

    def header(self, name: bytes) -> bytes | None:
        """The value of a header that may be sent once only; None without it. Raises BadHead (400) if sent twice."""
        values = self.all(name)
        if len(values) > 1:
            raise BadHead(400, f"Header sent twice: {name.decode('ascii')}")
        return values[0] if values else None

    def tokens(self, name: bytes) -> frozenset[bytes]:
        """The members of a comma list such as Connection, from all its lines, in lower case."""
        return _members(self.all(name))


def _members(values: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset([member.strip(b" \t") for value in values for member in value.lower().split(b",")]) - {
        b""
    }


class HeadBuffer:
    """Collects received bytes until they hold a whole head."""

    __slots__ = ("_begun", "_data")

    def __init__(self) -> None:
        self._data = bytearray()
        self._begun = False

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Adds bytes. Returns the head and the bytes behind it once the head is whole, else None.

        Raises BadHead as soon as no continuation could make the head valid.
        """
        # Only new bytes are searched, so that a head sent byte by byte does not cost its length squared.
        seen = max(0, len(self._data) - len(_END) + 1)
        self._data += data
        if not self._begun and len(self._data) > 1:
            self._begun = True
            if self._data.startswith(b"\r\n"):  # RFC 9112 section 2.2: one empty line may precede
                del self._data[:2]
        end = self._data.find(_END, seen)
        if end >= 0:
            size = end + len(_END)
            return bytes(self._data[:size]), bytes(self._data[size:])
        if _NEVER.search(self._data, seen):
            raise BadHead(400, "Malformed request head")
        _check_size(self._data)
        return None


def parse(raw: bytes, scheme: str = "http") -> RequestHead:
    """Parses a whole head, from the request line to the empty line. Raises BadHead."""
    if not raw.endswith(_END):
        raise BadHead(400, "Malformed request head")
    _check_size(raw)
    if not _is_clean(raw):
        raise BadHead(400, "Malformed request head")
    request_line, _, lines = raw[:-2].partition(b"\r\n")
    method, authority, target, version = _request_line(request_line)
    count = lines.count(b"\n")
    if count > MAX_HEADERS:
        raise BadHead(431, "Too many headers")
    # Neither a folded line, which starts with a blank, nor a name that ends in one is found.
    found = _HEADERS.findall(lines)
    if len(found) != count:
        raise BadHead(400, "Malformed header")
    headers = tuple([(name.lower(), value.rstrip(b" \t")) for name, value in found])
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    _check_host(values.get(b"host", []), authority, version)
    size = _body_bytes(values, version)
    keep_alive = version == "1.1" and b"close" not in _members(values.get(b"connection", ()))
    return RequestHead(method, target, version, headers, values, size, scheme, keep_alive)


def websocket_key(head: RequestHead) -> bytes | None:
    """The Sec-WebSocket-Key of a valid upgrade on `/ws/cluster` (RFC 6455 section 4.2.1): a GET of HTTP/1.1 for
    exactly this path, without a body. None for a request to another path that asks for no upgrade to WebSocket.

    Raises BadHead for all others.
    """
    websocket = b"websocket" in head.tokens(b"upgrade")
    if head.path != WEBSOCKET_PATH:
        if websocket:
            raise BadHead(404, "Not found")
        return None
    if head.method not in {"GET", "HEAD"}:
        raise BadHead(405, "Method not allowed", (("Allow", "GET"),))
    if head.method == "HEAD" or not websocket:
        raise BadHead(426, "This path speaks WebSocket", (("Upgrade", "websocket"),))
    if head.version != "1.1" or b"upgrade" not in head.tokens(b"connection") or head.body_bytes != 0:
        raise BadHead(400, "Malformed WebSocket upgrade")
    if head.header(b"sec-websocket-version") != b"13":
        raise BadHead(426, "Unsupported WebSocket version", (("Sec-WebSocket-Version", "13"),))
    key = head.header(b"sec-websocket-key")
    if key is None or not _WEBSOCKET_KEY.fullmatch(key):
        raise BadHead(400, "Malformed Sec-WebSocket-Key")
    return key


def _is_clean(raw: bytes) -> bool:
    """The same rule as `_NEVER` for a whole head, ten times as fast: each CR has its LF and each LF its CR."""
    ends = raw.count(b"\r\n")
    return ends == raw.count(b"\r") == raw.count(b"\n") and len(raw.translate(None, _CONTROLS)) == len(raw)


def _check_size(data: bytes | bytearray) -> None:
    if data.find(b"\r\n", 0, MAX_REQUEST_LINE_BYTES) < 0 and len(data) >= MAX_REQUEST_LINE_BYTES:
        raise BadHead(414, "Request target too long")
    if len(data) > MAX_HEAD_BYTES:
        raise BadHead(431, "Request head too large")


def _request_line(line: bytes) -> tuple[str, bytes | None, bytes, str]:
    """Method, authority (of an absolute form), path with query, version."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None or match[1] in {b"PRI", b"CONNECT"}:
        raise BadHead(400, "Malformed request line")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise BadHead(505, "HTTP version not supported")
    if len(target) > MAX_TARGET_BYTES:
        raise BadHead(414, "Request target too long")
    authority = None
    if absolute := _ABSOLUTE.fullmatch(target):
        authority, target = absolute.groups()
        target = target if target.startswith(b"/") else b"/" + target
    if not _TARGET.fullmatch(target):
        raise BadHead(400, "Malformed request target")
    return method.decode("ascii"), authority, target, "1.0" if minor == b"0" else "1.1"


def _check_host(hosts: list[bytes], authority: bytes | None, version: str) -> None:
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise BadHead(400, "One Host header is required")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise BadHead(400, "Malformed Host")
    if authority is not None and [_without_port_sign(authority)] != list(map(_without_port_sign, hosts)):
        raise BadHead(400, "The target's authority is not Host's")


def _without_port_sign(host: bytes) -> bytes:
    """In lower case, and without an empty port (RFC 3986 section 3.2.3)."""
    return host.lower().removesuffix(b":")


def _body_bytes(values: dict[bytes, list[bytes]], version: str) -> int | None:
    lengths, codings = values.get(b"content-length"), values.get(b"transfer-encoding")
    if codings is not None:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"] or version != "1.1":
            raise BadHead(400, "Ambiguous length of the body")
        return None
    if lengths is None:
        return 0
    if len(lengths) > 1 or not _CONTENT_LENGTH.fullmatch(lengths[0]):
        raise BadHead(400, "Malformed Content-Length")
    size = int(lengths[0])
    if size > MAX_BODY_BYTES:
        raise BadHead(413, "Request body too large")
    return size
