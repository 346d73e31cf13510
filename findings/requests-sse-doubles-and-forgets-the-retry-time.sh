#!/usr/bin/env bash
# A client waits twice the time that the server asked for, and the next time it has forgotten it.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check requests-sse==0.5.3 requests==2.34.2

cat >"$folder/server.py" <<'PYTHON'
"""Only the first of three responses has the field retry; each ends after its event."""
import socket
import time

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    ended = None
    for part in (b"retry: 1500\nid: 1\ndata: {}\n\n", b"id: 2\ndata: {}\n\n", b"id: 3\ndata: {}\n\n"):
        connection, _ = listener.accept()
        if ended:
            print(f"{time.monotonic() - ended:.0f} s", end="; ", flush=True)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + part)
        connection.close()
        ended = time.monotonic()
PYTHON
python3 "$folder/server.py" >"$folder/printed" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/printed" ] && break; sleep 0.1; done

cat >"$folder/show.py" <<'PYTHON'
import sys
from datetime import timedelta

from requests_sse import EventSource

with EventSource(sys.argv[1], reconnection_time=timedelta(seconds=5)) as source:
    for event in source:
        if event.last_event_id == "3":
            break
PYTHON
timeout 60 "$folder/venv/bin/python" "$folder/show.py" "http://127.0.0.1:$(head -n 1 "$folder/printed")/"
output="waits after 'retry: 1500' with 5 s of its own: $(tail -n +2 "$folder/printed")"

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -E '^requests' | tr '\n' ' ')"
echo "behaviour: the time is doubled before the first wait, and set back to the client's own when a connection opens, so the server's time holds twofold and once; the standard has it hold for all later connections, unless the server sets it again"
printf 'output: %s\n' "$output"

if ! [[ $output =~ :\ [34]\ s\;\ 1[01]\ s\;\ $ ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
