"""The line of the log that says where the daemon listens."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from heliosd.config.addresses import joined
from heliosd.config.model import Config

log = structlog.get_logger("heliosd")


def log_ready(listeners: Sequence[trio.SocketListener], config: Config) -> None:
    """`ready`, with the addresses as they were bound."""
    address, *more = map(_bound_address, listeners)
    also = {"also": more} if more else {}
    log.info("ready", address=address, **also, node=config.node.id, tls=config.server.tls_cert is not None)


def _bound_address(listener: trio.SocketListener) -> str:
    address = listener.socket.getsockname()
    if isinstance(address, bytes):  # in the abstract namespace; systemd writes it with "@"
        address = address.replace(b"\0", b"@").decode(errors="replace")
    return f"unix:{address}" if isinstance(address, str) else joined(*address[:2])
