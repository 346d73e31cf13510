"""An echo server for conformance suites, on the daemon's own parser, frames, compression and closing.

    python -m tests.conformance.echo PORT      # ws://127.0.0.1:PORT/, any path

It sends back every text and binary message. The daemon's limits for clients are raised, as suites send messages of
16 MiB and of 65,536 fragments.
"""

from __future__ import annotations

import socket as stdlib
import sys
from collections.abc import Iterable
from typing import assert_never

import trio
from msgspec.structs import replace

from heliosd.web.http.early_response import linger, refuse
from heliosd.web.http.request_head import WEBSOCKET_PATH, BadHead, HeadBuffer, parse
from heliosd.web.http.websocket_upgrade import Upgrade, upgrade_of
from heliosd.websocket.connection import (
    BinaryReceived,
    CloseReceived,
    Inbound,
    PingReceived,
    PongReceived,
    Received,
    TextReceived,
    Violation,
    accept_response,
)
from heliosd.websocket.deflate import MIN_COMPRESSED, agree, deflate
from heliosd.websocket.frames import TEXT, close_frame, frame, pong_frame
from heliosd.websocket.plain import PlainStream, prepare

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_FRAGMENTS = 1_000_000
RECEIVE_BYTES = 64 * 1024
BINARY = 0x2


async def echo(stream: PlainStream) -> None:
    """Serves one connection from its upgrade request to its end."""
    try:
        opened = await _open(stream)
        if opened is not None:
            deflates, behind = opened
            await _converse(stream, behind, deflates=deflates)
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await stream.aclose()


async def _open(stream: PlainStream) -> tuple[bool, bytes] | None:
    """Answers the upgrade. Whether compression is agreed, and the bytes behind the head; None if it was refused."""
    buffer = HeadBuffer()
    while data := await stream.receive_some(RECEIVE_BYTES):
        try:
            if (whole := buffer.feed(data)) is None:
                continue
            upgrade = _upgrade(whole[0])
        except BadHead as bad:
            await refuse(stream, bad.status, bad.reason, bad.headers)
            return None
        agreed = agree(upgrade.extensions) if upgrade.extensions else None
        await stream.send_all(accept_response(upgrade.key, subprotocol=None, extensions=agreed))
        return agreed is not None, whole[1]
    return None


def _upgrade(raw: bytes) -> Upgrade:
    """Of any path: suites choose their own."""
    upgrade = upgrade_of(replace(parse(raw), target=WEBSOCKET_PATH.encode("ascii")))
    assert upgrade is not None, "on this path all else is refused"
    return upgrade


async def _converse(stream: PlainStream, data: bytes, *, deflates: bool) -> None:
    inbound = Inbound(MAX_MESSAGE_BYTES, deflate_agreed=deflates, binary=True, max_fragments=MAX_FRAGMENTS)
    while not inbound.ended:
        await _answer(stream, inbound.receive(data), deflates=deflates)
        if not inbound.ended and not (data := await stream.receive_some(RECEIVE_BYTES)):
            return
    await linger(stream)


async def _answer(stream: PlainStream, came: Iterable[Received], *, deflates: bool) -> None:
    for received in came:
        match received:
            case TextReceived():
                await stream.send_all(_message(TEXT, received.text.encode(), deflates=deflates))
            case BinaryReceived():
                await stream.send_all(_message(BINARY, received.data, deflates=deflates))
            case PingReceived():
                await stream.send_all(pong_frame(received.payload))
            case PongReceived():
                pass
            case CloseReceived() | Violation():
                await stream.send_all(close_frame(received.code, received.reason))
            case _:
                assert_never(received)


def _message(opcode: int, payload: bytes, *, deflates: bool) -> bytes:
    if deflates and len(payload) >= MIN_COMPRESSED:
        return frame(opcode, deflate(payload), compressed=True)
    return frame(opcode, payload)


async def serve(port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    """Serves on 127.0.0.1 until cancelled. Reports the port, which is a free one for 0."""

    async def take(accepted: trio.SocketStream) -> None:
        prepare(accepted.socket)
        socket = stdlib.socket(fileno=accepted.socket.detach())
        socket.setblocking(False)
        await echo(PlainStream(socket))

    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, take, listeners)
        task_status.started(listeners[0].socket.getsockname()[1])


def main() -> int:
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.stderr.write("usage: python -m tests.conformance.echo PORT\n")
        return 2
    trio.run(serve, int(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
