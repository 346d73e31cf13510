#!/usr/bin/env bash
# A server that restarts says so with a code that the client library takes for a fault in the protocol.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

npm install --silent --no-audit --no-fund --prefix "$folder" faye-websocket@0.11.4 websocket-driver@0.8.0 ws@8.18.0 >"$folder/npm"

cat >"$folder/show.js" <<'SCRIPT'
const { Client } = require('faye-websocket');
const { WebSocket, WebSocketServer } = require('ws');

const codes = [1001, 1012, 1013, 1014, 4001];
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
server.on('connection', (socket, request) => socket.close(Number(request.url.slice(1)), 'a reason'));
server.on('listening', async () => {
    const seen = { 'faye-websocket': [], ws: [] };
    for (const code of codes) {
        const url = `ws://127.0.0.1:${server.address().port}/${code}`;
        await new Promise((done) => new Client(url).on('close', (event) => { seen['faye-websocket'].push(event.code); done(); }));
        await new Promise((done) => new WebSocket(url).on('close', (received) => { seen.ws.push(received); done(); }));
    }
    console.log(`sent ${codes.join(' ')}; ` + Object.entries(seen).map(([name, got]) => `${name} ${got.join(' ')}`).join('; '));
    server.close();
});
SCRIPT
output=$(cd "$folder" && timeout 60 node show.js)

version() { node -p "require('$folder/node_modules/$1/package.json').version"; }
echo "version: faye-websocket $(version faye-websocket) with websocket-driver $(version websocket-driver), ws $(version ws), Node $(node --version)"
echo "behaviour: a close with 1012 (service restart), 1013 (try again later) or 1014 (bad gateway), which IANA has registered, reaches the client as 1002, a protocol error, so that it cannot tell a restart from a fault of its own"
printf 'output: %s\n' "$output"

if ! [[ $output == "sent 1001 1012 1013 1014 4001; faye-websocket 1001 1002 1002 1002 4001; ws 1001 1012 1013 1014 4001" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
