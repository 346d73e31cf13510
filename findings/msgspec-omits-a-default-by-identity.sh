#!/usr/bin/env bash
# Two equal objects are written in two ways.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check msgspec==0.22.0

cat >"$folder/show.py" <<'PYTHON'
import msgspec


class Limits(msgspec.Struct, omit_defaults=True):
    retries: int = 100
    events: int = 1000
    seconds: float = 0.0
    name: str = "every node"


made = Limits()
read = msgspec.json.decode(b'{"retries": 100, "events": 1000, "seconds": 0.0, "name": "every node"}', type=Limits)
print(f"equal: {made == read}", msgspec.json.encode(made).decode(), msgspec.json.encode(read).decode(), sep="; ")
PYTHON
output=$("$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -i '^msgspec==')"
echo "behaviour: omit_defaults leaves out a value that is the very object of the default, not one that equals it: a struct that was read is written with its defaults, but for those that Python keeps one object of (None, small numbers), so that bytes which are compared or hashed differ"
printf 'output: %s\n' "$output"

if [[ $output != 'equal: True; {}; {"events":1000,"seconds":0.0,"name":"every node"}' ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
