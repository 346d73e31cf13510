#!/usr/bin/env bash
# Without a read timeout, a stream that is quiet for five seconds is cut for a read timeout.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

npm install --silent --no-audit --no-fund --prefix "$folder" launchdarkly-eventsource@2.2.0 >"$folder/npm"

cat >"$folder/show.cjs" <<'SCRIPT'
const http = require('http')
const {EventSource} = require('launchdarkly-eventsource')

// A stream that sends one event and is then quiet for nine seconds.
const server = http.createServer((request, response) => {
    response.writeHead(200, {'Content-Type': 'text/event-stream'})
    response.write('data: {}\n\n')
    setTimeout(() => response.end(), 9000)
})

function listen(name, options) {
    return new Promise(resolve => {
        const begun = Date.now()
        const source = new EventSource(`http://127.0.0.1:${server.address().port}/`, options)
        const finish = text => {
            source.close()
            resolve(`${name}: ${text}`)
        }
        source.onerror = error => finish(`${error.message} after ${Math.round((Date.now() - begun) / 1000)} s`)
        setTimeout(() => finish('still open after 8 s'), 8000)
    })
}

server.listen(0, '127.0.0.1', async () => {
    const seen = [listen('no options', {}), listen('readTimeoutMillis 60000', {readTimeoutMillis: 60000})]
    console.log((await Promise.all(seen)).join('; '))
    process.exit()
})
SCRIPT
output=$(timeout 60 node "$folder/show.cjs")

echo "version: launchdarkly-eventsource $(node -p "require('$folder/node_modules/launchdarkly-eventsource/package.json').version"), Node $(node --version)"
echo "behaviour: the agent that Node uses by default has a socket timeout of 5 s, which by itself closes no connection in use; this library takes the event for the end of a read timeout that nobody set, so keep-alives every 15 s mean a reconnection every 5 s"
printf 'output: %s\n' "$output"

if ! [[ $output == "no options: Read timeout, received no data in undefinedms"*"after 5 s; readTimeoutMillis 60000: still open after 8 s" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
