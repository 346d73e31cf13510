#!/usr/bin/env bash
# A reconnection resumes behind an event that was never delivered.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

npm install --silent --no-audit --no-fund --prefix "$folder" extended-eventsource@2.1.0 >"$folder/npm"

cat >"$folder/server.py" <<'PYTHON'
"""Sends one of PARTS to each connection, says what it resumed from, and closes it."""
import re
import socket
import sys
import time

PARTS = [b"retry: 300\nid: 6\ndata: six\n\nid: 7\ndata: sev", b"id: 8\ndata: eight\n\n"]

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

cat >"$folder/show.mjs" <<'SCRIPT'
import {EventSource} from 'extended-eventsource'
const source = new EventSource(process.argv[2])
source.onmessage = message => {
    console.log('event', message.lastEventId, message.data)
    if (message.data === 'eight') process.exit(0)
}
SCRIPT
output="$(timeout 60 node "$folder/show.mjs" "http://127.0.0.1:$(cat "$folder/port")/" 2>"$folder/errors" | grep '^event' | tr '\n' ',') $(tail -n 1 "$folder/requests")"

echo "version: extended-eventsource $(node -p "require('$folder/node_modules/extended-eventsource/package.json').version"), Node $(node --version)"
echo "behaviour: the id is taken when its line comes, not when the event is delivered as the HTML standard has it: a connection that is cut between the two loses that event for good, because the server is asked for what follows it"
printf 'output: %s\n' "$output"

if ! [[ $output == "event 6 six,event 8 eight, resumed from 7" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
