"""What the fuzzer calls with bytes: each target may refuse them by its own exception, and raise nothing else.

Where bytes come in pieces, the pieces must not matter: the first byte of the input says how long they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from heliosd.config.loader import parse as parse_config
from heliosd.errors import ConfigError, Invalid
from heliosd.protocol.client_commands import BadCommand
from heliosd.protocol.client_commands import parse as parse_command
from heliosd.web.http.request_body import ChunkedBody
from heliosd.web.http.request_head import BadHead, HeadBuffer, parse
from heliosd.web.http.websocket_upgrade import ordinary_upgrade, upgrade_of
from heliosd.web.rest.request_data import read_body, read_query
from heliosd.web.rest.route_table import ROUTES
from heliosd.web.stream.query import cursor_of, subscription_of
from heliosd.websocket.connection import Inbound, Violation

LIMIT = 1000
BODIES = sorted({route.body for route in ROUTES}, key=lambda shape: shape.__name__)
QUERIES = sorted({route.query for route in ROUTES}, key=lambda shape: shape.__name__)


def _pieces(data: bytes) -> Iterator[bytes]:
    size = 1 + data[0] % 32 if data else 1
    return (data[at : at + size] for at in range(1, len(data), size))


def _head_of(pieces: Iterator[bytes]) -> tuple[bytes, bytes] | None:
    buffer = HeadBuffer()
    for piece in pieces:
        if (whole := buffer.feed(piece)) is not None:
            # What comes behind depends on how the pieces were cut; all of it together does not.
            return whole[0], whole[1] + b"".join(pieces)
    return None


def head(data: bytes) -> None:
    """The head of a request, and the upgrade that it may be."""
    outcomes: list[object] = []
    for pieces in (iter([data[1:]]), _pieces(data)):
        try:
            found = _head_of(pieces)
            outcomes.append(found and (upgrade_of(parse(found[0])), found[1]))
        except BadHead:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1], outcomes
    quick = ordinary_upgrade(data[1:])
    assert quick is None or outcomes[0] == (quick, b""), (quick, outcomes)


def chunks(data: bytes) -> None:
    """A chunked body."""
    outcomes: list[object] = []
    for pieces in (iter([data[1:]]), _pieces(data)):
        body, content, rest = ChunkedBody(), b"", b""
        try:
            for piece in pieces:
                if body.done:
                    rest += piece
                    continue
                content += body.feed(piece)
                rest += body.rest
            outcomes.append((content, body.done, rest))
        except BadHead:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1], outcomes


def frames(data: bytes) -> None:
    """What a WebSocket client sends."""
    deflates = bool(data[:1] and data[0] & 1)
    outcomes: list[object] = []
    for pieces in (iter([data[1:]]), _pieces(data)):
        inbound = Inbound(LIMIT, deflate_agreed=deflates)
        came = [received for piece in pieces for received in inbound.receive(piece)]
        # Of two faults in one frame the pieces decide which is seen first.
        outcomes.append(["violation" if isinstance(each, Violation) else each for each in came])
        inbound.end()
        assert list(inbound.receive(b"more")) == []
    assert outcomes[0] == outcomes[1], outcomes


def bodies(data: bytes) -> None:
    """JSON as each route reads it."""
    for shape in BODIES:
        with suppress(Invalid):
            read_body(data, shape)


def queries(data: bytes) -> None:
    """Query strings of routes, and those of streams."""
    for shape in QUERIES:
        with suppress(Invalid):
            read_query(data, shape)
    text = data.decode("latin-1")
    for read in (cursor_of, subscription_of):
        with suppress(Invalid):
            read({"filter": [text]})
        with suppress(Invalid):
            read({"epoch": [text], "after": [text[:20]]})


def commands(data: bytes) -> None:
    """A message of a WebSocket client."""
    with suppress(BadCommand):
        parse_command(data.decode("utf-8", "replace"))


def config(data: bytes) -> None:
    """A configuration file."""
    with suppress(ConfigError):
        parse_config(data.decode("utf-8", "replace"))


TARGETS: dict[str, Callable[[bytes], Any]] = {
    each.__name__: each for each in (head, chunks, frames, bodies, queries, commands, config)
}
