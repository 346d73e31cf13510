#!/usr/bin/env bash
# A connection that is refused leaves objects in cycles, which only the garbage collector frees.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trio==0.35.0

cat >"$folder/connect.py" <<'PYTHON'
import gc
import socket

import trio

TIMES = 100


async def left_by(port: int) -> float:
    async def connect() -> None:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            return
        stream.socket.close()

    await connect()
    gc.collect()
    gc.disable()
    for _ in range(TIMES):
        await connect()
    found = gc.collect()
    gc.enable()
    return found / TIMES


async def main() -> None:
    with socket.socket() as nobody, socket.create_server(("127.0.0.1", 0), backlog=2 * TIMES) as somebody:
        nobody.bind(("127.0.0.1", 0))
        refused = await left_by(nobody.getsockname()[1])
        accepted = await left_by(somebody.getsockname()[1])
    print(f"refused {refused:.0f}, accepted {accepted:.0f}")


trio.run(main)
PYTHON
output=$("$folder/venv/bin/python" "$folder/connect.py")

echo "version: trio $("$folder/venv/bin/pip" show trio 2>/dev/null | sed -n 's/^Version: //p')"
echo "behaviour: open_tcp_stream leaves objects in cycles whenever the connection is refused, and none when it is made; a program that has raised the garbage collector's threshold, and keeps trying to reach a host that is away, stands still when they are all collected at once"
echo "output: objects left by each call: $output"

refused=${output#refused }
refused=${refused%%,*}
if [ "$refused" -lt 10 ]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
