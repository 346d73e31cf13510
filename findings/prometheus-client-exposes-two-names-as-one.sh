#!/usr/bin/env bash
# Two metrics with different names are exposed as one series, twice.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check prometheus-client==0.26.0

cat >"$folder/show.py" <<'PYTHON'
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import choose_encoder

registry = CollectorRegistry()
Gauge("queue.length", "Jobs that wait.", registry=registry).set(1)
Gauge("queue_length", "Jobs that wait.", registry=registry).set(2)


def samples(text):
    return ", ".join(line for line in text.decode().splitlines() if not line.startswith("#"))


encode, content_type = choose_encoder("text/plain; version=1.0.0; escaping=allow-utf-8")
print(f"by default: {samples(generate_latest(registry))}; with escaping=allow-utf-8: {samples(encode(registry))}")
PYTHON
output=$(timeout 60 "$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -i '^prometheus')"
echo "behaviour: since names may hold any UTF-8 the registry takes both, as it compares names before they are escaped; a scraper that does not ask for UTF-8 gets dots as underscores, and so the same series with two values and no error"
printf 'output: %s\n' "$output"

if ! [[ $output == "by default: queue_length 1.0, queue_length 2.0; with escaping=allow-utf-8: {\"queue.length\"} 1.0, queue_length 2.0" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
