"""A client's write pump: runs only while the client is behind, and ends when it has caught up."""

from __future__ import annotations

import trio

from ..config import Settings
from .client import Client
from .counters import HubCounters
from .goodbye import TOO_SLOW

BATCH_BYTES = 64 * 1024
"""How much is joined into one write. It is also what a client must take within `write_timeout`, so that a
trickle of bytes does not pass for a client that keeps up."""


async def write_pump(client: Client, settings: Settings, counters: HubCounters) -> None:
    """Empty the client's queue into its socket.

    A client that does not take a batch within `websocket.write_timeout` is cut; the connection's own task then
    ends and leaves the hub. Nothing is raised.
    """
    try:
        while client.has_more():
            with trio.move_on_after(settings.current.websocket.write_timeout) as patience:
                await _write_batch(client, counters)
            if patience.cancelled_caught:
                waiting = len(client.mailbox) + len(client.replay) + 1
                client.dropped += waiting
                counters.dropped["write_timeout"] += waiting
                client.cut(TOO_SLOW)
                return
        client.behind = False
        if client.goodbye is not None:
            client.linger()
    except (OSError, ValueError, trio.BrokenResourceError, trio.ClosedResourceError):
        client.scope.cancel()


async def _write_batch(client: Client, counters: HubCounters) -> None:
    """One batch, whole: at most `BATCH_BYTES` and the message that goes over them."""
    outlet = client.outlet
    room = BATCH_BYTES
    while room > 0:
        if not client.rest:
            client.rest = _joined(client, room)
        if not client.rest and not outlet.pending:
            return
        await outlet.wait_writable()
        if client.rest:
            taken = outlet.write_now(client.rest)
            counters.bytes += taken
            room -= taken
            client.rest = memoryview(client.rest)[taken:]


def _joined(client: Client, at_most: int) -> bytes:
    """The next frames, joined until they fill `at_most` bytes."""
    frames: list[bytes] = []
    while at_most > 0:
        message = client.take()
        if message is None:
            break
        frame = client.frame_of(message)
        frames.append(frame)
        at_most -= len(frame)
    return b"".join(frames)
