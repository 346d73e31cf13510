#!/usr/bin/env bash
# With reconnect= a program is never told that, or why, the server closed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check websocket-client==1.9.2 websockets==17.4

cat >"$folder/show.py" <<'PYTHON'
import threading

import websocket
from websockets.sync.server import serve


def handle(connection):
    connection.close(4403, "no longer allowed")


def calls_of(url, **options):
    """What a client is told within some seconds, and whether it is still at it."""
    calls = []
    app = websocket.WebSocketApp(
        url,
        on_open=lambda _: calls.append("open"),
        on_reconnect=lambda _: calls.append("reconnect"),
        on_error=lambda _, error: calls.append(f"error {type(error).__name__}"),
        on_close=lambda _, code, reason: calls.append(f"close {code}"),
    )
    thread = threading.Thread(target=app.run_forever, kwargs=options, daemon=True)
    thread.start()
    thread.join(4.5)
    going_on = thread.is_alive()
    told = " ".join(calls[:4])
    app.close()
    thread.join()
    return f"{told}, {'goes on' if going_on else 'ends'}"


with serve(handle, "127.0.0.1", 0) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
    print(f"plain: {calls_of(url)}; with reconnect=1: {calls_of(url, reconnect=1)}")
    server.shutdown()
PYTHON
output=$(timeout 60 "$folder/venv/bin/python" "$folder/show.py" 2>"$folder/log")

echo "version: websocket-client 1.9.2, $(python3 --version); server websockets 17.4"
echo "behaviour: run_forever(reconnect=seconds) calls neither on_close nor on_error when the server closes: the close code is seen nowhere, and a client that is not allowed any more connects again and again"
printf 'output: %s\n' "$output"

if ! [[ $output == "plain: open error WebSocketConnectionClosedException close 4403, ends; with reconnect=1: open reconnect reconnect reconnect, goes on" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
