#!/usr/bin/env bash
# A JSON string that ends with an unpaired surrogate is refused as if the text had been cut off.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check msgspec==0.22.0

cat >"$folder/decode.py" <<'END'
import json

import msgspec

TEXT = rb'{"data":"\ud83d"}'
assert json.loads(TEXT) == {"data": "\ud83d"}, "the standard library takes it"
try:
    print(msgspec.json.decode(TEXT))
except msgspec.DecodeError as error:
    print(type(error).__name__, error)
END
output=$("$folder/venv/bin/python" "$folder/decode.py")

echo "version: msgspec $("$folder/venv/bin/python" -c 'import msgspec; print(msgspec.__version__)')"
echo "behaviour: the text is complete and follows the grammar of RFC 8259 (section 8.2 warns of such strings); the error says that it was truncated, so a server that shows it sends its client looking for lost bytes"
printf 'output: %s\n' "$output"

if ! [[ $output == "DecodeError Input data was truncated" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
