"""Frames from the server, made once and shared (RFC 6455 section 5.2, unmasked and never fragmented), and two
questions about bytes from a client that spare it a parser."""

from __future__ import annotations

import struct

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
FIN = 0x80
MASKED = 0x80
MAX_CONTROL_PAYLOAD = 125


def frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """One whole frame. `compressed` sets RSV1 (RFC 7692 section 6)."""
    first = FIN | opcode | (0x40 if compressed else 0)
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def text_frame(payload: bytes) -> bytes:
    """A text message. `payload` is UTF-8; that is the caller's promise."""
    return frame(TEXT, payload)


def ping_frame(payload: bytes = b"") -> bytes:
    return frame(PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping, with its payload (RFC 6455 section 5.5.3)."""
    return frame(PONG, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame. A reason that does not fit the 123 bytes a control frame has is cut at a character."""
    text = reason.encode()[: MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore").encode()
    return frame(CLOSE, struct.pack("!H", code) + text)


def is_lone_pong(data: bytes) -> bool:
    """Whether these bytes, the first after a whole message, are the answer to one of our pings and nothing else."""
    return len(data) == 6 and data[0] == FIN | PONG and data[1] == MASKED


def ends_whole(data: bytes) -> bool:
    """Whether these bytes, the first after a whole message, end with the end of a whole message (or of a control
    frame between messages). False also where that takes a parser to say: after a first fragment."""
    start, size = 0, len(data)
    while start + 2 <= size:
        if not data[start] & FIN:
            return False
        length = data[start + 1] & 0x7F
        start += 6
        if length == 126:
            length = int.from_bytes(data[start - 4 : start - 2])
            start += 2
        elif length == 127:
            length = int.from_bytes(data[start - 4 : start + 4])
            start += 8
        start += length
    return start == size
