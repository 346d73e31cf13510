#!/usr/bin/env bash
# One user, one request: etcd 3.6.10 refuses a member's status to it, 3.6.16 answers.
set -euo pipefail

cd "$(dirname "$0")/.."
folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

status_on() {
    local bin url peer token
    bin=$(scripts/etcd "$1" 2>/dev/null)
    url=http://127.0.0.1:$(free_port)
    peer=http://127.0.0.1:$(free_port)
    "$bin/etcd" --data-dir "$folder/$1" --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$folder/log" 2>&1 &
    started+=($!)
    for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
    ask() { curl -s --max-time 3 "$url/v3/$1" --data "$2"; }
    ask auth/user/add '{"name":"root","password":"root"}' >/dev/null
    ask auth/role/add '{"name":"root"}' >/dev/null
    ask auth/user/grant '{"user":"root","role":"root"}' >/dev/null
    ask auth/user/add '{"name":"someone","password":"someone"}' >/dev/null
    ask auth/enable '{}' >/dev/null
    token=$(ask auth/authenticate '{"name":"someone","password":"someone"}' | grep -o '"token": *"[^"]*"' | cut -d'"' -f4)
    curl -s --max-time 3 --header "Authorization: $token" "$url/v3/maintenance/status" --data '{}' |
        grep -o '"message": *"[^"]*"\|"version": *"[^"]*"' >"$folder/$1.status"
}
status_on 3.6.10
status_on 3.6.16
output="3.6.10: $(cat "$folder/3.6.10.status"); 3.6.16: $(cat "$folder/3.6.16.status")"

echo "version: etcd 3.6.10 and 3.6.16"
echo "behaviour: which right a member's status needs changes between patch releases of one branch: the role root up to 3.6.11, any login from 3.6.12 on (3.5.31 and 3.5.32 alike; nothing at all before 3.5.28)"
printf 'output: %s\n' "$output"

if ! { grep -q "permission denied" "$folder/3.6.10.status" && grep -q version "$folder/3.6.16.status"; }; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
