#!/usr/bin/env bash
# A server that says goodbye loses its clients for good; one that is killed gets them back.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

npm install --silent --no-audit --no-fund --prefix "$folder" sockette@2.0.6 reconnecting-websocket@4.4.0 ws@8.23.0 >"$folder/npm"

cat >"$folder/show.js" <<'SCRIPT'
const { once } = require('node:events')
const { WebSocket, WebSocketServer } = require('ws')
globalThis.WebSocket = WebSocket
const sockette = require('sockette')
const Reconnecting = require('reconnecting-websocket')

const clients = {
    sockette: url => sockette(url, { timeout: 50 }),
    'reconnecting-websocket': url => new Reconnecting(url, [], { minReconnectionDelay: 50, maxReconnectionDelay: 50 }),
}

/** Whether the client of that name comes again within a second after its first connection was ended by `end`. */
async function comesAgain(name, end) {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
    await once(server, 'listening')
    let connections = 0
    server.on('connection', socket => {
        connections += 1
        if (connections === 1) end(socket)
    })
    const client = clients[name](`ws://127.0.0.1:${server.address().port}/`)
    await new Promise(resolve => setTimeout(resolve, 1000))
    client.close()
    for (const socket of server.clients) socket.terminate()
    server.close()
    return connections > 1 ? 'comes again' : 'stays away'
}

async function main() {
    for (const name of Object.keys(clients)) {
        const cut = await comesAgain(name, socket => socket.terminate())
        const seen = [`cut without a close frame: ${cut}`]
        for (const code of [1001, 1011, 1012, 4000]) seen.push(`${code}: ${await comesAgain(name, socket => socket.close(code))}`)
        console.log(`${name}: ${seen.join(', ')}`)
    }
    process.exit(0)
}
main()
SCRIPT
(cd "$folder" && timeout 60 node show.js) >"$folder/seen"
output=$(paste -sd';' "$folder/seen" | sed 's/;/; /g')

echo "version: sockette 2.0.6 beside reconnecting-websocket 4.4.0, ws 8.23.0, Node $(node --version)"
echo "behaviour: sockette, which exists to reconnect, never does so after close code 1001 (going away), with which a server that restarts says goodbye; after a cut connection, 1011, 1012 and 4000 it does"
printf 'output: %s\n' "$output"

if ! [[ $output == "sockette: cut without a close frame: comes again, 1001: stays away, 1011: comes again, 1012: comes again, 4000: comes again; reconnecting-websocket: cut without a close frame: comes again, 1001: comes again, "* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
