#!/usr/bin/env bash
# An event whose response body comes in two chunks loses what is in the second.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sseclient==0.0.27 requests==2.34.2

cat >"$folder/server.py" <<'PYTHON'
"""One response in chunks (RFC 9112 section 7.1), of which two share an event."""
import socket

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for chunk in (b"id: 1\ndata: first half,", b" second half\n\n", b"id: 2\ndata: whole\n\n", b""):
        connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    connection.close()
PYTHON
python3 "$folder/server.py" >"$folder/port" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done

cat >"$folder/show.py" <<'PYTHON'
import sys

import sseclient

for event in sseclient.SSEClient(sys.argv[1]):
    print(event.id, repr(event.data), end="; ")
    if event.id == "2":
        break
PYTHON
output=$(timeout 30 "$folder/venv/bin/python" "$folder/show.py" "http://127.0.0.1:$(cat "$folder/port")/")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(sseclient|requests)==' | tr '\n' ' ')"
echo "behaviour: it reads from the file below http.client's response, to be given what is there at once, and so past the decoding of chunks: their sizes become lines of the stream, unknown fields that are passed over, and a line that goes on behind one is cut without an error"
printf 'output: %s\n' "$output"

if ! [[ $output == "1 'first half,'; 2 'whole'; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
