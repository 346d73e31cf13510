#!/usr/bin/env bash
# A TLS connection over memory buffers keeps as much memory as the largest message that went through them.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trustme==1.2.1

cat >"$folder/keep.py" <<'PYTHON'
import ssl
from pathlib import Path

import trustme

CONNECTIONS = 40
MESSAGE = bytes(1024 * 1024)
authority = trustme.CA()
server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost").configure_cert(server_context)
client_context = ssl.create_default_context()
authority.configure_trust(client_context)


class End:
    def __init__(self, context, **role):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **role)


def connected():
    server = End(server_context, server_side=True)
    client = End(client_context, server_hostname="localhost")
    for _ in range(3):
        for end, other in ((client, server), (server, client)):
            try:
                end.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            other.incoming.write(end.outgoing.read())
    return server, client


def send(server, client, piece):
    received = 0
    for at in range(0, len(MESSAGE), piece):
        server.tls.write(MESSAGE[at : at + piece])
        client.incoming.write(server.outgoing.read())
        while client.incoming.pending:
            received += len(client.tls.read(65536))
    assert received == len(MESSAGE), received
    assert not server.outgoing.pending


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def kept(piece):
    pairs = [connected() for _ in range(CONNECTIONS)]
    before = resident()
    for server, client in pairs:
        send(server, client, piece)
    return (resident() - before) / CONNECTIONS / 1024


small = kept(16 * 1024)
large = kept(len(MESSAGE))
print(f"{ssl.OPENSSL_VERSION}; KiB kept by a connection after 1 MiB: at once {large:.0f}, in pieces of 16 KiB {small:.0f}")
raise SystemExit(not (large > 1024 and small < 200))
PYTHON
changed=0
output=$("$folder/venv/bin/python" "$folder/keep.py") || changed=1

echo "version: $("$folder/venv/bin/python" --version), trustme $("$folder/venv/bin/pip" show trustme 2>/dev/null | sed -n 's/^Version: //p')"
echo "behaviour: ssl.MemoryBIO never gives back the memory of the most that it has held, although all of it was read: a server that writes whole messages keeps the largest one for each connection until it ends; pieces of one TLS record, read out one by one, keep none of it"
echo "output: $output"

if [ "$changed" = 1 ]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
