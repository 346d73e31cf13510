"""Reads request bodies within limits: one for each body, and one for all that are being received together."""

from __future__ import annotations

import trio
from quart import Request

from heliosd.web.problems import BodyLate, BodyTooLarge, TryLater

BODY_SECONDS = 30
SHARED_BYTES = 16 * 1024 * 1024
"""Held for bodies that are not complete yet, of all requests together."""


class BodyReader:
    def __init__(self) -> None:
        self._held = 0

    async def read(self, request: Request, max_bytes: int) -> bytes:
        """The whole body. Raises `BodyTooLarge` (413), at once if Content-Length says so, `TryLater` (503) if all
        bodies together are too much, and `BodyLate` (408)."""
        if (request.content_length or 0) > max_bytes:
            raise BodyTooLarge(max_bytes)
        body = bytearray()
        try:
            with trio.move_on_after(BODY_SECONDS) as deadline:
                async for piece in request.body:
                    body += piece
                    self._held += len(piece)
                    if len(body) > max_bytes:
                        raise BodyTooLarge(max_bytes)
                    if self._held > SHARED_BYTES:
                        raise TryLater("Too many request bodies at once", status=503, seconds=1)
        finally:
            self._held -= len(body)
        if deadline.cancelled_caught:
            raise BodyLate
        return bytes(body)
