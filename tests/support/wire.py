"""WebSocket frames as bytes, for clients that break rules which a library keeps."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def upgrade(
    host: str, token: str, query: Mapping[str, str] = MappingProxyType({}), *, deflate: bool = False
) -> bytes:
    """An upgrade request on `/ws/cluster`."""
    lines = [
        f"GET /ws/cluster?{urlencode(query)} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Authorization: Bearer {token}",
        *([f"Sec-WebSocket-Extensions: {DEFLATE}"] if deflate else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def masked(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A frame as a client sends it."""
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += struct.pack("!BH", 0x80 | 126, size)
    else:
        head += struct.pack("!BQ", 0x80 | 127, size)
    key = os.urandom(4)
    pad = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + (int.from_bytes(payload, "big") ^ pad).to_bytes(size, "big")


class Frame(NamedTuple):
    """A frame from the server."""

    opcode: int
    payload: bytes
    compressed: bool

    @property
    def close_code(self) -> int | None:
        return struct.unpack("!H", self.payload[:2])[0] if self.opcode == CLOSE and self.payload else None

    def message(self) -> dict[str, Any]:
        return dict(json.loads(self.payload))


class BrokenFraming(Exception):
    """The server's bytes are not RFC 6455: two frames are mixed, or one is malformed."""


class Frames:
    """The server's side of a connection, strictly: its answer to the upgrade, then whole unmasked frames."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.head = b""
        """The answer to the upgrade, once it is whole."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Every frame that `data` completes. Raises `BrokenFraming`."""
        self._data += data
        if not self.head:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head = bytes(self._data[: end + 4])
            del self._data[: end + 4]
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        data = self._data
        if len(data) < 2:
            return None
        first, size = data[0], data[1]
        start = 2
        if first & 0x30 or first & 0x0F not in {TEXT, CLOSE, PING, PONG} or not first & 0x80 or size & 0x80:
            raise BrokenFraming(f"a frame that begins with {bytes(data[:16])!r}")
        if size >= 126:
            length = 2 if size == 126 else 8
            if len(data) < 2 + length:
                return None
            start += length
            size = int.from_bytes(data[2:start], "big")
        if size > 16 * 1024 * 1024:
            raise BrokenFraming(f"a frame of {size} bytes")
        if len(data) < start + size:
            return None
        frame = Frame(first & 0x0F, bytes(data[start : start + size]), bool(first & 0x40))
        del data[: start + size]
        return frame
