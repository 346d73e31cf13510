"""`websockets`' own `broadcast()` on uvloop: `python -m benchmarks.peers.websockets_hub INTERVAL_MS MESSAGE_BYTES`.

Compression is off, as it is for the others; everything else is as the library has it.
"""

from __future__ import annotations

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from .beats import arguments, keep, message, print_ready


async def main() -> None:
    interval, size = arguments()
    clients: set[ServerConnection] = set()

    async def follow(client: ServerConnection) -> None:
        clients.add(client)
        try:
            await client.wait_closed()
        finally:
            clients.discard(client)

    async with serve(follow, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096) as server:
        print_ready(server.sockets[0].getsockname())
        await keep(lambda: broadcast(clients, message(size).decode()), interval)


if __name__ == "__main__":
    uvloop.run(main())
