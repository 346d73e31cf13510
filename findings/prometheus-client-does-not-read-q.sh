#!/usr/bin/env bash
# A scrape that refuses OpenMetrics with q=0 gets OpenMetrics.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check prometheus-client==0.26.0

cat >"$folder/show.py" <<'PYTHON'
from urllib.request import Request, urlopen

from prometheus_client import CollectorRegistry, start_http_server

server, _ = start_http_server(0, addr="127.0.0.1", registry=CollectorRegistry())
for accept in ("application/openmetrics-text;q=0, text/plain", "application/openmetrics-text;q=0.1, text/plain;q=1"):
    request = Request(f"http://127.0.0.1:{server.server_port}/metrics", headers={"Accept": accept})
    with urlopen(request) as answer:
        print(f"{accept}: {answer.headers['Content-Type'].partition(';')[0]}", end="; ")
server.shutdown()
PYTHON
output=$(timeout 60 "$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -i '^prometheus')"
echo "behaviour: the first format of the header Accept that is known is sent, and its weight is not read, so what a client ranks last or refuses (RFC 9110 section 12.4.2: q=0 is 'not acceptable') is what it gets"
printf 'output: %s\n' "$output"

if ! [[ $output == *"q=0, text/plain: application/openmetrics-text; "*"q=1: application/openmetrics-text; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
