#!/usr/bin/env bash
# A close code that says "broken" goes out as the one that says "done".
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check wsproto==1.3.2

cat >"$folder/show.py" <<'PYTHON'
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection

for code in (1006, 1015):
    sender, receiver = Connection(ConnectionType.SERVER), Connection(ConnectionType.CLIENT)
    receiver.receive_data(sender.send(CloseConnection(code=code, reason="x" * 200)))
    for event in receiver.events():
        got = event
    print(f"{code} sent, {int(got.code)} received, {len(got.reason or '')} of 200 letters", end="; ")
PYTHON
output=$("$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -i '^wsproto==')"
echo "behaviour: codes that may not be sent (1005, 1006, 1015) are replaced by 1000, normal closure, without an error, so that a server which hands on the code of a broken upstream tells its clients not to come back; a reason that does not fit is cut as quietly"
printf 'output: %s\n' "$output"

if ! [[ $output == *"1006 sent, 1000 received, 123 of 200 letters; 1015 sent, 1000 received"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
