#!/usr/bin/env bash
# Three members of etcd and a heliosd beside each, on the loopback, until Ctrl-C. Begins anew at every start; what
# it writes, and the logs, are in .run beside this script.
#
#   ETCD_PORT=12379       the members' ports: this one and the five after it
#   HELIOSD_PORT=8081     heliosd's ports: this one and the two after it
#   HELIOSD=…             the program, if it is neither in .venv nor in PATH
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
run=$PWD/.run
root=$(cd ../.. && pwd)
etcd_port=${ETCD_PORT:-12379}
heliosd_port=${HELIOSD_PORT:-8081}

fail() {
    echo "$*" >&2
    exit 1
}

# What is needed

command -v etcd >/dev/null || fail "etcd is missing: apt-get install etcd-server (Debian and Ubuntu)"
command -v setsid >/dev/null || fail "setsid is missing: apt-get install util-linux (Debian and Ubuntu)"
heliosd=${HELIOSD:-$root/.venv/bin/heliosd}
[ -x "$heliosd" ] || heliosd=$(command -v heliosd) ||
    fail "heliosd is missing: 'make run' in the repository installs it in .venv, or set HELIOSD to the program"

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
for port in $(seq "$etcd_port" $((etcd_port + 5))); do
    ! listens "$port" || fail "port $port is taken; ETCD_PORT=… chooses other ports for etcd"
done
for port in $(seq "$heliosd_port" $((heliosd_port + 2))); do
    ! listens "$port" || fail "port $port is taken; HELIOSD_PORT=… chooses other ports for heliosd"
done

# What is started

rm -rf "$run"
mkdir -m 700 "$run"
umask 077
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$run/jwt_secret"
head -c 9 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$run/password"
hash=$("$heliosd" hash-password <"$run/password" | tail -n 1)

members=() urls=()
for n in 1 2 3; do
    members+=("node-$n=http://127.0.0.1:$((etcd_port + 2 + n))")
    urls+=("http://127.0.0.1:$((etcd_port - 1 + n))")
done
IFS=, cluster="${members[*]}" endpoints="${urls[*]}"
unset IFS
echo "$endpoints" >"$run/endpoints"

# A member that ends is started again, as systemd would do it: after a second, or after the seconds that
# kill-leader.sh left in its file.
keep_member() {
    local n=$1 client=${urls[$1 - 1]} peer=${members[$1 - 1]#*=}
    while [ -e "$run/running" ]; do
        setsid etcd --name "node-$n" --data-dir "$run/etcd-$n" \
            --listen-client-urls "$client" --advertise-client-urls "$client" \
            --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
            --initial-cluster "$cluster" --initial-cluster-token "heliosd-example" \
            >>"$run/etcd-$n.log" 2>&1 &
        echo $! >"$run/etcd-$n.pid"
        { wait $! || true; } 2>/dev/null # hides the message that it was killed
        local tenths=10
        [ ! -e "$run/etcd-$n.pause" ] || tenths=$(($(cat "$run/etcd-$n.pause") * 10))
        rm -f "$run/etcd-$n.pause"
        for _ in $(seq "$tenths"); do
            [ -e "$run/running" ] || return 0
            sleep 0.1
        done
    done
}

# Ctrl-C reaches this script alone: each process has a session of its own, so that all end in order.
keepers=() daemons=()
stop() {
    trap '' INT TERM HUP
    rm -f "$run/running"
    [ ${#daemons[@]} = 0 ] || kill -TERM "${daemons[@]}" 2>/dev/null || true
    [ ${#daemons[@]} = 0 ] || wait "${daemons[@]}" || true
    local pid
    for pid in "$run"/etcd-?.pid; do
        # Not SIGTERM: a leader would look for a successor among those that end with it, and nothing is kept.
        [ ! -e "$pid" ] || kill -KILL "$(cat "$pid")" 2>/dev/null || true
    done
    [ ${#keepers[@]} = 0 ] || wait "${keepers[@]}" || true
}
trap 'exit 130' INT
trap 'exit 143' TERM HUP
trap stop EXIT

touch "$run/running"
for n in 1 2 3; do
    keep_member "$n" &
    keepers+=($!)
done
for n in 1 2 3; do
    own=\"${urls[n - 1]}\" others=
    for url in "${urls[@]}"; do [ "\"$url\"" = "$own" ] || others+=", \"$url\""; done
    sed -e "s|@N@|$n|g" -e "s|@DIR@|$run|g" -e "s|@PORT@|$((heliosd_port - 1 + n))|g" \
        -e "s|@HASH@|$hash|g" -e "s|@ENDPOINTS@|$own$others|g" heliosd.toml >"$run/heliosd-$n.toml"
    setsid "$heliosd" serve --config "$run/heliosd-$n.toml" >"$run/heliosd-$n.log" 2>&1 &
    daemons+=($!)
done

ready() {
    local status
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
    read -r status <&3
    exec 3>&-
    [[ $status == *" 200 "* ]]
} 2>/dev/null
for n in 1 2 3; do
    for _ in $(seq 300); do
        kill -0 "${daemons[n - 1]}" 2>/dev/null || fail "heliosd $n ended; see $run/heliosd-$n.log"
        ! ready $((heliosd_port - 1 + n)) || continue 2
        sleep 0.1
    done
    fail "heliosd $n is not ready; see $run/heliosd-$n.log and $run/etcd-$n.log"
done

cat <<END

  etcd        $endpoints
  heliosd     http://127.0.0.1:$heliosd_port/  http://127.0.0.1:$((heliosd_port + 1))/  http://127.0.0.1:$((heliosd_port + 2))/
  user        admin
  password    $(cat "$run/password")

  The addresses are dashboards. In other terminals:

    $heliosd watch --url http://127.0.0.1:$heliosd_port --user admin --password-file $run/password
    $PWD/kill-leader.sh       kills the leader; it is back after 10 s

  Logs are in $run. Ctrl-C stops everything.

END
wait
