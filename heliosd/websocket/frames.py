"""Frames from the server, made once and shared (RFC 6455 section 5.2, unmasked and never fragmented), and two
checks of bytes from a client that need no parser."""

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
    """A text message. `payload` must be UTF-8; this is not checked."""
    return frame(TEXT, payload)


def ping_frame(payload: bytes = b"") -> bytes:
    return frame(PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping, with its payload (RFC 6455 section 5.5.3)."""
    return frame(PONG, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame. The reason is cut at a character to the 123 bytes that fit into a control frame."""
    text = reason.encode()[: MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore").encode()
    return frame(CLOSE, struct.pack("!H", code) + text)


def is_lone_pong(data: bytes) -> bool:
    """Whether these bytes, the first after a whole message, are one pong without a payload and nothing else."""
    return len(data) == 6 and data[0] == FIN | PONG and data[1] == MASKED


def ends_whole(data: bytes) -> bool:
    """Whether these bytes, the first after a whole message, end at the end of a whole message or control frame.

    False for a fragmented message even where it is whole: only a parser can know that."""
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
