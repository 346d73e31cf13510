#!/usr/bin/env bash
# Pings that are never answered do not end a WebSocket.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check hypercorn==0.18.0 trio==0.35.0

cat >"$folder/show.py" <<'PYTHON'
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def connect(url):
    host, port = url.rpartition("/")[2].split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    await stream.send_all(UPGRADE)
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    return stream


async def main():
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.websocket_ping_interval = 1
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(serve, app, config))
        stream = await connect(url)
        received = b""
        with trio.move_on_after(6.5) as waited:
            while data := await stream.receive_some():
                received += data
        print("open," if waited.cancelled_caught else "closed,", "pings", received.count(b"\x89"))
        nursery.cancel_scope.cancel()


trio.run(main)
PYTHON
output=$(timeout 60 "$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(hypercorn|trio|wsproto)==' | tr '\n' ' ')"
echo "behaviour: with websocket_ping_interval a client is pinged, but one that answers no ping is neither closed nor logged"
printf 'output: %s\n' "$output"

if ! [[ $output == *"open, pings "[4-9]* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
