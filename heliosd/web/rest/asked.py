"""A request as the steps before a view read it, whoever parsed it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from heliosd.web.http.listeners import Address
from heliosd.web.origin import joined

ReadBody: TypeAlias = Callable[[int], Awaitable[bytes]]
"""Reads the body, of at most so many bytes. Raises as `BodyReader.read`."""


async def _no_body(_: int) -> bytes:
    return b""


class Asked(Struct, frozen=True, kw_only=True):
    query_string: bytes
    """Not decoded."""
    scheme: str
    """`http` or `https`."""
    peer: Address
    all: Callable[[str], Sequence[str]]
    """Every value of a header, in the order sent."""
    read_body: ReadBody = _no_body

    def joined(self, header: str) -> str | None:
        """The values of a header as one; None without it."""
        return joined(self.all(header))
