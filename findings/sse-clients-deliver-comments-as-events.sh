#!/usr/bin/env bash
# A comment, as servers send it to keep a stream alive, is delivered as an event.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check httpx-sse==0.4.3 httpx==0.28.1
npm install --silent --no-audit --no-fund --prefix "$folder" @microsoft/fetch-event-source@2.0.1 >"$folder/npm"

cat >"$folder/server.py" <<'PYTHON'
"""Sends one of PARTS to each connection, says what it resumed from, and closes it."""
import re
import socket
import sys
import time

PARTS = [b": welcome\n\nid: 6\ndata: {}\n\n: still here\n\n"] * 2

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    for part in PARTS:
        connection, _ = listener.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        resumed = re.search(rb"last-event-id: *(\S+)", head, re.IGNORECASE)
        print("resumed from", resumed[1].decode() if resumed else "nothing", file=sys.stderr, flush=True)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + part)
        time.sleep(0.5)
        connection.close()
PYTHON
python3 "$folder/server.py" >"$folder/port" 2>"$folder/requests" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
url="http://127.0.0.1:$(cat "$folder/port")/"

cat >"$folder/show.py" <<'PYTHON'
import sys

import httpx
import httpx_sse

with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", sys.argv[1]) as source:
    for event in source.iter_sse():
        print([event.id, event.data], end=" ")
PYTHON
cat >"$folder/show.mjs" <<'SCRIPT'
globalThis.window = globalThis
globalThis.document = {hidden: false, addEventListener() {}, removeEventListener() {}}
const {fetchEventSource} = await import('@microsoft/fetch-event-source')
await fetchEventSource(process.argv[2], {onmessage: ({id, data}) => console.log(JSON.stringify([id, data]))})
SCRIPT
python=$(timeout 30 "$folder/venv/bin/python" "$folder/show.py" "$url")
node=$(timeout 30 node "$folder/show.mjs" "$url" | tr '\n' ' ')
output="httpx-sse: $python; fetch-event-source: $node"

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^httpx(-sse)?==' | tr '\n' ' ')and @microsoft/fetch-event-source 2.0.1"
echo "behaviour: the HTML standard dispatches nothing where there was no data; fetch-event-source hands out an event with empty data for every comment, and httpx-sse for each behind the first id, because it asks whether there is an id rather than data: a JSON parser fails at the first keep-alive"
printf 'output: %s\n' "$output"

if ! [[ $python == "['6', '{}'] ['6', '']"* && $node == '["",""] ["6","{}"] ["",""]'* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
