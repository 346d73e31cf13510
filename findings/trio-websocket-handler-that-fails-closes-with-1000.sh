#!/usr/bin/env bash
# To its client, a server's handler that fails looks like one that is done.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trio-websocket==0.12.2 trio==0.35.0

cat >"$folder/show.py" <<'PYTHON'
import trio
from trio_websocket import ConnectionClosed, open_websocket_url, serve_websocket


async def handler(request):
    websocket = await request.accept()
    await websocket.get_message()
    raise LookupError("the handler fails")


async def main():
    try:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websocket, handler, "127.0.0.1", 0, None)
            async with open_websocket_url(f"ws://127.0.0.1:{server.port}/") as websocket:
                await websocket.send_message("a request")
                try:
                    await websocket.get_message()
                except ConnectionClosed as closed:
                    print("client:", closed.reason.code, closed.reason.name, end="; ")
    except* LookupError as raised:
        error = raised
        while isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        print("serve_websocket raised:", repr(error))


trio.run(main)
PYTHON
output=$("$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(trio|trio-websocket)==' | tr '\n' ' ')"
echo "behaviour: when a handler raises, its client receives 1000, normal closure, and not 1011, internal error, so that a client which stays away after 1000 does not come back"
printf 'output: %s\n' "$output"

if ! [[ $output == "client: 1000 NORMAL_CLOSURE; serve_websocket raised: LookupError('the handler fails')" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
