"""A client's write pump: runs only while the client is behind, and ends when it has caught up."""

from __future__ import annotations

import trio

from heliosd.config.model import Settings
from heliosd.protocol.close_codes import TOO_SLOW

from .client import BATCH_BYTES, HubClient
from .counters import HubCounters


async def write_pump(client: HubClient, settings: Settings, counters: HubCounters) -> None:
    """Empty the client's queue into its socket.

    If a client does not take `BATCH_BYTES`, or all that is left, within `websocket.write_timeout` its connection is
    aborted; the connection's own task then ends and leaves the hub. Nothing is raised.
    """
    try:
        while client.has_more():
            with trio.move_on_after(settings.current.websocket.write_timeout) as timeout:
                await _write_batch(client)
            if timeout.cancelled_caught:
                client.abort(TOO_SLOW)
                counters.dropped["write_timeout"] += client.take_lost()
                return
        client.catch_up()
        if client.close_reason is not None:
            client.linger()
    except (OSError, ValueError, trio.BrokenResourceError, trio.ClosedResourceError):
        client.hang_up()


async def _write_batch(client: HubClient) -> None:
    """At most `BATCH_BYTES` of what is half written, or of what comes next. A single message may be longer."""
    transport = client.transport
    if transport.pending:
        await transport.wait_writable()  # sends all of it: as much as is encrypted at once
        return
    if not client.unsent:
        client.unsent = client.take_joined()
    room = BATCH_BYTES
    while (client.unsent and room) or transport.pending:
        await transport.wait_writable()
        if client.unsent and room:
            taken = transport.write_now(memoryview(client.unsent)[:room])
            client.unsent = memoryview(client.unsent)[taken:]
            room -= taken
