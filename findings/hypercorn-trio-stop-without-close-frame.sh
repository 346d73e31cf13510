#!/usr/bin/env bash
# A server that stops sends its WebSocket clients no close frame.
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
    config.graceful_timeout = 1
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait))
        stream = await connect(url)
        stop.set()
        received = b""
        with trio.fail_after(20):
            while data := await stream.receive_some():
                received += data
        print("bytes before the end:", len(received))


trio.run(main)
PYTHON
output=$(timeout 60 "$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(hypercorn|trio|wsproto)==' | tr '\n' ' ')"
echo "behaviour: when the shutdown trigger fires, an open WebSocket gets the end of the stream without a close frame, so a client sees 1006"
printf 'output: %s\n' "$output"

if ! [[ $output == *"bytes before the end: 0"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
