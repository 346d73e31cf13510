#!/usr/bin/env bash
# Text that is not UTF-8 is refused with an error that is not of msgspec, or is not refused at all.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check msgspec==0.22.0

cat >"$folder/show.py" <<'PYTHON'
import msgspec


class Named(msgspec.Struct):
    name: str


for what, data in {
    "a wrong type": b'{"name":1}',
    "Latin-1 in a field": b'{"name":"caf\xe9"}',
    "Latin-1 in an unknown field": b'{"name":"n","other":"caf\xe9"}',
}.items():
    try:
        msgspec.json.decode(data, type=Named)
    except Exception as error:
        of_msgspec = isinstance(error, msgspec.MsgspecError)
        print(f"{what}: {type(error).__name__}, {'a' if of_msgspec else 'no'} MsgspecError", end="; ")
    else:
        print(f"{what}: taken", end="; ")
PYTHON
output=$("$folder/venv/bin/python" "$folder/show.py")

echo "version: msgspec 0.22.0, $(python3 --version)"
echo "behaviour: text that is not UTF-8 raises UnicodeDecodeError, which is no msgspec.MsgspecError (the base of all errors of msgspec) and no DecodeError, and in a field that the type does not have it is taken"
printf 'output: %s\n' "$output"

if ! [[ $output == "a wrong type: ValidationError, a MsgspecError; Latin-1 in a field: UnicodeDecodeError, no MsgspecError; Latin-1 in an unknown field: taken; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
