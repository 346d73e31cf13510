#!/usr/bin/env bash
# A client that answers every ping is closed by a server that compares the answers with its questions.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    chmod -R u+w "$folder"
    rm -rf "$folder"
}
trap finish EXIT
export GOPATH="$folder/gopath" GOFLAGS=-mod=mod

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check websockets==17.4

cat >"$folder/server.py" <<'PYTHON'
"""Pings every 0.2 s, and closes whoever has not answered a ping within a second."""
import asyncio
import sys

from websockets.asyncio.server import serve


async def hold(connection):
    name = connection.request.headers["User-Agent"]
    connection.pongs = []
    received = connection.protocol.recv_frame

    def noted(frame):
        if frame.opcode == 10:
            connection.pongs.append(len(frame.data))
        received(frame)

    connection.protocol.recv_frame = noted
    try:
        await asyncio.wait_for(connection.wait_closed(), 4)
        sent = connection.protocol.close_sent
        ended = f"closed with {sent.code} {sent.reason}"
    except TimeoutError:
        ended = "still open after 4 s"
    data = "with" if any(connection.pongs) else "without"
    print(f"{name}: pongs {data} data, {ended}" if connection.pongs else f"{name}: no pongs, {ended}", flush=True)


async def main():
    async with serve(hold, "127.0.0.1", 0, ping_interval=0.2, ping_timeout=1) as server:
        print(server.sockets[0].getsockname()[1], file=sys.stderr, flush=True)
        await asyncio.sleep(60)


asyncio.run(main())
PYTHON

cat >"$folder/go.mod" <<'MODULE'
module shown

go 1.25.0

require (
	github.com/coder/websocket v1.8.14
	github.com/lxzan/gws v1.8.9
)
MODULE
cat >"$folder/main.go" <<'GO'
package main

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"
	"github.com/lxzan/gws"
)

type handler struct{ gws.BuiltinEventHandler }

func main() {
	url := os.Args[1]
	socket, _, err := gws.NewClient(handler{}, &gws.ClientOption{Addr: url, RequestHeader: http.Header{"User-Agent": {"gws"}}})
	if err != nil {
		panic(err)
	}
	go socket.ReadLoop()
	other, _, err := websocket.Dial(context.Background(), url, &websocket.DialOptions{HTTPHeader: http.Header{"User-Agent": {"coder/websocket"}}})
	if err != nil {
		panic(err)
	}
	other.CloseRead(context.Background())
	time.Sleep(6 * time.Second)
}
GO

"$folder/venv/bin/python" "$folder/server.py" >"$folder/seen" 2>"$folder/port" &
started+=($!)
(cd "$folder" && go build -o shown .)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
timeout 60 "$folder/shown" "ws://127.0.0.1:$(cat "$folder/port")/"
output=$(sort "$folder/seen" | paste -sd';' | sed 's/;/; /g')

echo "version: gws 1.8.9 beside coder/websocket 1.8.14, $(go version | cut -d' ' -f3); Python websockets 17.4"
echo "behaviour: the built-in handler of gws answers a ping with an empty pong, not with the ping's data (RFC 6455 section 5.5.3 wants the same data); a server that looks for its data, as Python's websockets does, takes the client for dead and closes"
printf 'output: %s\n' "$output"

if ! [[ $output == "coder/websocket: pongs with data, still open after 4 s; gws: pongs without data, closed with 1011 keepalive ping timeout" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
