#!/usr/bin/env bash
# A test that raises exactly what xfail(raises=…) names fails.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pytest-trio==0.8.0 trio==0.35.0 pytest==9.2.0

cat >"$folder/test_show.py" <<'PYTHON'
import pytest


@pytest.mark.xfail(raises=ValueError, strict=True)
async def test_async():
    raise ValueError


@pytest.mark.xfail(raises=pytest.RaisesGroup(ValueError), strict=True)
async def test_async_as_a_group():
    raise ValueError


@pytest.mark.xfail(raises=ValueError, strict=True)
def test_sync():
    raise ValueError
PYTHON
printf '[pytest]\ntrio_mode = true\n' >"$folder/pytest.ini"
output=$(cd "$folder" && venv/bin/python -m pytest -q -rA --tb=no -p no:cacheprovider test_show.py |
    grep -oE '^(XFAIL|FAILED) test_show.py::[a-z_]+' | tr '\n' ';' || true)

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -iE '^(pytest-trio|pytest|trio)==' | tr '\n' ' ')"
echo "behaviour: each async test runs in a nursery of the plugin, and Trio since 0.25 wraps what leaves a nursery in an ExceptionGroup, so the type that a test raises is never the type that pytest compares, without any nursery in the test"
printf 'output: %s\n' "$output"

if ! [[ $output == *"FAILED test_show.py::test_async;"* && $output == *"XFAIL test_show.py::test_async_as_a_group;"* && $output == *"XFAIL test_show.py::test_sync;"* ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
