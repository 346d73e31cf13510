#!/usr/bin/env bash
# An event that has arrived is held back until later ones fill a block, when the response is not in chunks.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check requests-sse==0.5.3 sseclient-py==1.9.0 requests==2.34.2 urllib3==2.8.0

cat >"$folder/server.py" <<'PYTHON'
"""An event at once and one 3 s later. The body ends with the connection (RFC 9112 section 6.3), or is in chunks."""
import socket
import time

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        chunked = head.startswith(b"GET /chunks ")
        framing = b"Transfer-Encoding: chunked" if chunked else b"Connection: close"
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%s\r\n\r\n" % framing)
        for number, event in enumerate((b"id: 1\ndata: {}\n\n", b"id: 2\ndata: {}\n\n")):
            time.sleep(3 * number)
            connection.sendall(b"%x\r\n%s\r\n" % (len(event), event) if chunked else event)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        connection.close()
PYTHON
python3 "$folder/server.py" >"$folder/port" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done

cat >"$folder/show.py" <<'PYTHON'
import sys
import time

import requests
from requests_sse import EventSource
from sseclient import SSEClient


def of_requests_sse(url):
    with EventSource(url) as source:
        for event in source:
            yield event.last_event_id


def of_sseclient_py(url):
    with requests.get(url, stream=True, headers={"Accept": "text/event-stream"}) as response:
        for event in SSEClient(response).events():
            yield event.id


for client in (of_requests_sse, of_sseclient_py):
    for path in ("chunks", "close"):
        began = time.monotonic()
        seen = []
        for number in client(f"{sys.argv[1]}/{path}"):
            seen.append("at once" if time.monotonic() - began < 2 else "after 3 s")
            if number == "2":
                break
        print(f"{client.__name__[3:]} {path}: {', '.join(seen)}", end="; ")
PYTHON
output=$(timeout 60 "$folder/venv/bin/python" "$folder/show.py" "http://127.0.0.1:$(cat "$folder/port")")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -E '^(requests|sseclient|urllib3)' | tr '\n' ' ')"
echo "behaviour: both read the response of requests in blocks of 512 and 128 bytes, and urllib3 hands on each chunk as it comes, but waits for a whole block of a body without chunks: the first of two events 3 s apart is seen with the second"
printf 'output: %s\n' "$output"

if ! [[ $output == "requests_sse chunks: at once, after 3 s; requests_sse close: after 3 s, after 3 s; sseclient_py chunks: at once, after 3 s; sseclient_py close: after 3 s, after 3 s; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
