#!/usr/bin/env bash
# An id that comes without data is not remembered for the reconnection.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check launchdarkly-eventsource==1.7.4
npm install --silent --no-audit --no-fund --prefix "$folder" launchdarkly-eventsource@2.2.0 >"$folder/npm"

cat >"$folder/server.py" <<'PYTHON'
"""Sends one of PARTS to each connection, says what it resumed from, and closes it."""
import re
import socket
import sys
import time

PARTS = [b"retry: 300\n\nid: 6\ndata: six\n\nid: 7\n: nothing for you up to here\n\n", b"id: 8\ndata: eight\n\n"]

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

cat >"$folder/show.py" <<'PYTHON'
import sys

from ld_eventsource import SSEClient
from ld_eventsource.config import ConnectStrategy, ErrorStrategy

client = SSEClient(connect=ConnectStrategy.http(sys.argv[1]), error_strategy=ErrorStrategy.always_continue())
for event in client.events:
    if event.data == "eight":
        break
client.close()
PYTHON
cat >"$folder/show.cjs" <<'SCRIPT'
const {EventSource} = require('launchdarkly-eventsource')
const source = new EventSource(process.argv[2])
source.onmessage = message => { if (message.data === 'eight') process.exit(0) }
SCRIPT
resumed() {
    python3 "$folder/server.py" >"$folder/port" 2>"$folder/requests" &
    started+=($!)
    for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
    timeout 30 "$@" "http://127.0.0.1:$(cat "$folder/port")/" >"$folder/log" 2>&1
    tail -n 1 "$folder/requests"
    rm "$folder/port"
}
python=$(resumed "$folder/venv/bin/python" "$folder/show.py")
node=$(resumed node "$folder/show.cjs")
output="Python: $python; Node: $node"

echo "version: launchdarkly-eventsource 1.7.4 of PyPI and 2.2.0 of npm"
echo "behaviour: the HTML standard sets the last event id at every blank line, before it looks whether there was data; here an id counts only with data, so a server that moves a quiet client's point to resume from with ids alone does not reach these"
printf 'output: %s\n' "$output"

if ! [[ $python == "resumed from 6" && $node == "resumed from 6" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
