#!/usr/bin/env bash
# The close of a connection, with its code, is received as an empty text.
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
    connection.send("")
    connection.close(4001, "log in again")


with serve(handle, "127.0.0.1", 0) as server:
    threading.Thread(target=server.serve_forever).start()
    client = websocket.create_connection(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/", timeout=5)
    print("a message:", repr(client.recv()), end="; ")
    print("the close:", repr(client.recv()), end="; ")
    try:
        client.recv()
    except websocket.WebSocketException as error:
        print("then", type(error).__name__, "with 4001" if "4001" in str(error) else "without the code")
    server.shutdown()
PYTHON
output=$(timeout 60 "$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(websocket-client|websockets)==' | tr '\n' ' ')"
echo "behaviour: recv() returns the data of texts and binaries and '' for every other opcode, the close frame among them, so an orderly end looks like an empty message; code and reason are to be had from recv_data() alone"
printf 'output: %s\n' "$output"

if ! [[ $output == "a message: ''; the close: ''; then "*"without the code" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
