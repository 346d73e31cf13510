"""The fastest way that picows knows on uvloop: `python -m benchmarks.peers.picows_hub INTERVAL_MS MESSAGE_BYTES`.

The message stands once in a buffer with room for the frame's head before it, and goes to everyone from there.
"""

from __future__ import annotations

import uvloop
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from .beats import arguments, keep, message, print_ready

HEAD_BYTES = 14


class Client(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        clients.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        clients.discard(transport)


clients: set[WSTransport] = set()


def upgrade(request: WSUpgradeRequest) -> Client:
    del request
    return Client()


async def main() -> None:
    interval, size = arguments()

    def tick() -> None:
        frame = bytearray(HEAD_BYTES) + message(size)
        for client in clients:
            client.send_reuse_external_bytearray(WSMsgType.TEXT, frame, HEAD_BYTES)

    server = await ws_create_server(upgrade, "127.0.0.1", 0, backlog=4096)
    print_ready(server.sockets[0].getsockname())
    await keep(tick, interval)


if __name__ == "__main__":
    uvloop.run(main())
