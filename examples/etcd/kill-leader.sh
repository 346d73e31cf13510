#!/usr/bin/env bash
# Kills the leader of the cluster that run.sh has started, with SIGKILL, and waits until it is back.
#
#   kill-leader.sh [SECONDS]     how long it stays away, 10 if not said
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
run=$PWD/.run
seconds=${1:-10}
[[ $seconds =~ ^[0-9]{1,4}$ ]] || { echo "usage: kill-leader.sh [SECONDS]" >&2; exit 2; }
[ -e "$run/running" ] || { echo "run.sh is not running" >&2; exit 1; }
IFS=, read -r -a urls <"$run/endpoints"

# How the member behind a URL stands, as JSON; nothing if it does not answer.
status() {
    local address=${1#http://} line
    exec 3<>"/dev/tcp/${address%:*}/${address#*:}" || return 0
    printf 'POST /v3/maintenance/status HTTP/1.0\r\nHost: %s\r\nContent-Length: 2\r\n\r\n{}' "$address" >&3
    while read -r -t 2 line || [ -n "$line" ]; do [[ $line != "{"* ]] || echo "$line"; done <&3
    exec 3>&-
} 2>/dev/null

# The number and the id of the member that says of itself that it leads; nothing while there is none.
leader() {
    local n answer
    for n in 1 2 3; do
        answer=$(status "${urls[n - 1]}")
        if [[ $answer =~ \"member_id\":\"([0-9]+)\" && $answer == *"\"leader\":\"${BASH_REMATCH[1]}\""* ]]; then
            printf '%s %x\n' "$n" "${BASH_REMATCH[1]}"
            return
        fi
    done
}

for _ in $(seq 50); do
    read -r old old_id <<<"$(leader)"
    [ -z "$old" ] || break
    sleep 0.2
done
[ -n "$old" ] || { echo "there is no leader to kill" >&2; exit 1; }

echo "$seconds" >"$run/etcd-$old.pause"
kill -KILL "$(cat "$run/etcd-$old.pid")"
echo "killed node-$old ($old_id), the leader"

until read -r new new_id <<<"$(leader)" && [ -n "$new" ]; do
    [ -e "$run/running" ] || exit 1
    sleep 0.1
done
echo "node-$new ($new_id) leads"

until [ ! -e "$run/etcd-$old.pause" ] && [ -n "$(status "${urls[old - 1]}")" ]; do
    [ -e "$run/running" ] || exit 1
    sleep 0.2
done
echo "node-$old is back"
