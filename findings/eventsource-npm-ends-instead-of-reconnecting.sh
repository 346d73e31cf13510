#!/usr/bin/env bash
# A program that only listens to an event stream ends, with 0, when the connection is lost.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

npm install --silent --no-audit --no-fund --prefix "$folder" eventsource@5.1.5 >"$folder/npm"

cat >"$folder/server.py" <<'PYTHON'
"""Sends one of PARTS to each connection, says what it resumed from, and closes it."""
import re
import socket
import sys
import time

PARTS = [b"retry: 300\n\nid: 6\ndata: six\n\n", b"id: 7\ndata: seven\n\n"]

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

cat >"$folder/show.mjs" <<'SCRIPT'
import {EventSource} from 'eventsource'
const source = new EventSource(process.argv[2])
source.onmessage = message => {
    console.log('event', message.data)
    if (message.data === 'seven') source.close()
}
source.onerror = () => console.log('error, readyState', source.readyState)
if (process.argv[3] === 'kept') setTimeout(() => {}, 3000)
SCRIPT

listen() {
    python3 "$folder/server.py" >"$folder/port" 2>"$folder/requests" &
    started+=($!)
    for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
    timeout 30 node "$folder/show.mjs" "http://127.0.0.1:$(cat "$folder/port")/" "$@" | tr '\n' ','
    echo " exit ${PIPESTATUS[0]}, connections: $(wc -l <"$folder/requests")"
    rm "$folder/port"
}
alone=$(listen)
kept=$(listen kept)
output="alone: $alone; with a timer of its own: $kept"

echo "version: eventsource $(node -p "require('$folder/node_modules/eventsource/package.json').version"), Node $(node --version)"
echo "behaviour: the timer of the reconnection does not keep the process running (unref), so a program with nothing else to do ends quietly in the 'connecting' state instead of reconnecting"
printf 'output: %s\n' "$output"

if ! [[ $alone == "event six,error, readyState 0, exit 0, connections: 1" && $kept == *"event seven"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
