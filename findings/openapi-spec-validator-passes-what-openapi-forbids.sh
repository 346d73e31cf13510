#!/usr/bin/env bash
# Three mistakes that OpenAPI 3.1 names pass the validator, beside one of the same kind that does not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openapi-spec-validator==0.9.0

cat >"$folder/check.py" <<'PYTHON'
from openapi_spec_validator import validate

ANSWER = {"responses": {"200": {"description": "ok"}}}


def passes(**paths):
    try:
        validate({"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths["paths"]})
    except Exception:
        return "no"
    return "yes"


def query(**more):
    return {"name": "n", "in": "query", "schema": {"type": "integer", **more}}


def path(name):
    return {"get": {**ANSWER, "parameters": [{"name": name, "in": "path", "required": True, "schema": {}}]}}


found = {
    "a security scheme that is not defined": passes(paths={"/a": {"get": {**ANSWER, "security": [{"none": []}]}}}),
    "/a/{b} beside /a/{c}": passes(paths={"/a/{b}": path("b"), "/a/{c}": path("c")}),
    "an example that is not of its type": passes(
        paths={"/a": {"get": {**ANSWER, "parameters": [{**query(), "example": "text"}]}}}
    ),
    "a default that is not of its type": passes(
        paths={"/a": {"get": {**ANSWER, "parameters": [query(default="text")]}}}
    ),
}
print("; ".join(f"{what}: {result}" for what, result in found.items()))
raise SystemExit(list(found.values()) != ["yes", "yes", "yes", "no"])
PYTHON
changed=0
output=$("$folder/venv/bin/python" "$folder/check.py") || changed=1

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -i '^openapi-spec-validator==')"
echo "behaviour: a description is called valid with a security requirement that names no defined scheme (4.8.30: it must), with two templated paths that differ in the name alone (4.8.8.2: identical, and invalid), and with an example that its schema refuses, although a default that its schema refuses is an error"
echo "output: passes: $output"

if [ "$changed" = 1 ]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
