#!/usr/bin/env bash
# A timestamp with nanoseconds is decoded into the year that follows.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check msgspec==0.22.0

cat >"$folder/decode.py" <<'PYTHON'
import json
from datetime import datetime

import msgspec

for text in ("2026-12-31T23:59:59.999999500Z", "9999-12-31T23:59:59.999999999Z"):
    try:
        decoded = msgspec.json.decode(json.dumps(text), type=datetime).isoformat()
    except msgspec.ValidationError as error:
        decoded = str(error)
    print(f"{text}: {decoded} (fromisoformat: {datetime.fromisoformat(text).isoformat()})", end="; ")
PYTHON
output=$("$folder/venv/bin/python" "$folder/decode.py")

echo "version: msgspec $("$folder/venv/bin/python" -c 'import msgspec; print(msgspec.__version__)')"
echo "behaviour: digits behind the microseconds are rounded, where Python's own fromisoformat cuts them off, so a time with nanoseconds, as Go writes it, can become a later one, in the next second or year, and the last one of 9999 is refused as malformed"
printf 'output: %s\n' "$output"

if ! [[ $output == *"2027-01-01T00:00:00+00:00"*"Invalid RFC3339"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
