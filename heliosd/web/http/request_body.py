"""The body of a request, cut out of the bytes behind its head by Content-Length or chunks (RFC 9112 section 7.1).

Chunks are decoded strictly: no bare LF, no blank around a size, extensions and trailers ignored but well formed.
"""

from __future__ import annotations

import re

from .request_head import HEADER, MAX_BODY_BYTES, BadHead

MAX_LINE_BYTES = 256
"""Of a line with a chunk's size, or of a trailer."""
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t -~\x80-\xff]*)?")
_CRLF = b"\r\n"


class SizedBody:
    """`size` bytes. `done`: all were fed; `rest`: what was fed behind them."""

    def __init__(self, size: int) -> None:
        self._due = size
        self.done = not size
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The part of `data` that belongs to the body."""
        body, self.rest = data[: self._due], data[self._due :]
        self._due -= len(body)
        self.done = not self._due
        return body


class ChunkedBody:
    """Chunks up to the last one and its trailers. `done`: it was fed; `rest`: what was fed behind it."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._data = bytearray()
        self._due = 0
        """Bytes of the present chunk that are due, with the line end behind it."""
        self._size = self._lines = 0
        self._trailers = False

    def feed(self, data: bytes) -> bytes:
        """The content that `data` adds. Raises BadHead: 400 for malformed chunks, 413 over `MAX_BODY_BYTES`."""
        self._data += data
        content = bytearray()
        while not self.done:
            if self._due > len(_CRLF):
                piece = self._data[: self._due - len(_CRLF)]
                content += piece
                del self._data[: len(piece)]
                self._due -= len(piece)
            if self._due > len(_CRLF) or (line := self._line()) is None:
                break
            if self._due:
                if line:
                    raise BadHead(400, "Malformed chunk")
                self._due = 0
            elif not self._trailers:
                self._begin_chunk(line)
            elif not line:
                self.done = True
                self.rest = bytes(self._data)
            elif not HEADER.fullmatch(line):
                raise BadHead(400, "Malformed trailer")
        return bytes(content)

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise BadHead(400, "Malformed chunk size")
        size = int(match[1], 16)
        self._size += size
        if self._size > MAX_BODY_BYTES:
            raise BadHead(413, "Request body too large")
        self._trailers = not size
        self._due = size and size + len(_CRLF)

    def _line(self) -> bytes | None:
        """The next line without its end; None while it is not whole."""
        end = self._data.find(b"\n", 0, MAX_LINE_BYTES)
        if end < 0 and len(self._data) < MAX_LINE_BYTES:
            return None
        line = bytes(self._data[: end + 1])
        del self._data[: end + 1]
        self._lines += len(line)
        if not line.endswith(_CRLF) or b"\r" in line[:-2] or self._lines > MAX_BODY_BYTES:
            raise BadHead(400, "Malformed chunk")
        return line[:-2]
