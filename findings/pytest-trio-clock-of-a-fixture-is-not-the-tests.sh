#!/usr/bin/env bash
# A test whose fixture asks for the mock clock waits in real time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pytest-trio==0.8.0 pytest==8.4.2 trio==0.35.0

cat >"$folder/test_clocks.py" <<'PYTHON'
import time

import pytest
import trio


@pytest.fixture
async def server(autojump_clock):
    return "a server whose timeouts are to pass at once"


async def test_by_the_fixture(server):
    began = time.monotonic()
    await trio.sleep(1)
    print("by the fixture:", round(time.monotonic() - began), "s;")


async def test_by_the_test(server, autojump_clock):
    began = time.monotonic()
    await trio.sleep(1)
    print("by the test as well:", round(time.monotonic() - began), "s;")


@pytest.mark.usefixtures("autojump_clock")
async def test_by_usefixtures():
    began = time.monotonic()
    await trio.sleep(1)
    print("by usefixtures:", round(time.monotonic() - began), "s;")
PYTHON
output=$(cd "$folder" && timeout 60 venv/bin/python -m pytest -q -s -o trio_mode=true -p no:cacheprovider test_clocks.py |
    grep -o '[a-z].*: [0-9]* s;' | tr '\n' ' ')

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(pytest-trio|pytest|trio)==' | tr '\n' ' ')"
echo "behaviour: autojump_clock is the clock of a test only if the test function takes it itself; asked for by a fixture of the test or by usefixtures it is made and not used, without a warning, and sleep(1) takes a second"
printf 'output: %s\n' "$output"

if [[ $output != "by the fixture: 1 s; by the test as well: 0 s; by usefixtures: 1 s; " ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
