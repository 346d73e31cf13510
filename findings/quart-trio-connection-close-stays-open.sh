#!/usr/bin/env bash
# A response that says "Connection: close" does not close the connection.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check hypercorn==0.18.0 quart-trio==0.12.0 quart==0.22.0 trio==0.35.0

cat >"$folder/show.py" <<'PYTHON'
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart_trio import QuartTrio

app = QuartTrio(__name__)


@app.get("/")
async def index():
    return "done"


async def main():
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.keep_alive_timeout = 60
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(serve, app, config))
        host, port = url.rpartition("/")[2].split(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        with trio.move_on_after(5) as waited:
            while data := await stream.receive_some():
                answer += data
        head = answer.partition(b"\r\n\r\n")[0].decode().splitlines()
        print(head[0], "|", ", ".join(line for line in head if line.lower().startswith("connection")), end=" | ")
        print("still open after 5 s" if waited.cancelled_caught else "closed")
        nursery.cancel_scope.cancel()


trio.run(main)
PYTHON
output=$(timeout 60 "$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(hypercorn|quart-trio|quart|trio)==' | tr '\n' ' ')"
echo "behaviour: a request with Connection: close is answered whole and with that header, but the server does not close the connection"
printf 'output: %s\n' "$output"

if ! [[ $output == *"200"*"Connection: close"*"still open after 5 s"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
