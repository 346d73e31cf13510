"""Responses sent before a request has been read to its end, in such a way that they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus

import msgspec
import trio

from heliosd.websocket.plain import CONNECTION_LOST
from heliosd.websocket.tls import ClientStream

LINGER_SECONDS = 1.0
_RECEIVE_BYTES = 64 * 1024


async def refuse(
    stream: ClientStream,
    status: int,
    error: str | Mapping[str, object],
    headers: Iterable[tuple[str, str]] = (),
    *,
    body: bool = True,
) -> None:
    """Sends `status` with `{"error": error}` (or the given fields) as JSON, then closes as `linger` does.

    `body=False` is for HEAD. Header names and values must not contain line ends. A peer that is gone is no error.
    """
    content = msgspec.json.encode({"error": error} if isinstance(error, str) else error) + b"\n"
    fields = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(content))),
        ("X-Content-Type-Options", "nosniff"),
        *headers,
    ]
    # RFC 9110, 7.8: a response with Upgrade names it in Connection.
    upgrade = any(name == "Upgrade" for name, _ in fields)
    fields.append(("Connection", "close, Upgrade" if upgrade else "close"))
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields]
    answer = "\r\n".join((*lines, "", "")).encode("latin-1")
    with trio.move_on_after(LINGER_SECONDS), suppress(*CONNECTION_LOST):
        await stream.send_all(answer + content if body else answer)
    await linger(stream)


async def linger(stream: ClientStream) -> None:
    """Ends our direction, discards input until the peer closes, for at most 1 s, and closes the connection.

    Closing while input is unread makes the kernel send a reset, which can destroy a response still on its way.
    """
    with trio.move_on_after(LINGER_SECONDS), suppress(*CONNECTION_LOST):
        stream.half_close()
        while await stream.receive_some(_RECEIVE_BYTES):
            pass
    await stream.aclose()
