#!/usr/bin/env bash
# A leader that has lost all others goes on saying that it leads.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pysyncobj==0.3.17

cat >"$folder/show.py" <<'PYTHON'
import socket
import time

from pysyncobj import SyncObj, SyncObjConf


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def until(condition, seconds):
    began = time.monotonic()
    while not condition() and time.monotonic() - began < seconds:
        time.sleep(0.05)
    return time.monotonic() - began


conf = SyncObjConf()
names = [f"127.0.0.1:{free_port()}" for _ in range(3)]
members = [SyncObj(name, [other for other in names if other != name], conf) for name in names]


def leading():
    return [member for member in members if member._isLeader()]


def agreed():
    seen = [member._getLeader() for member in members]
    return leading() and None not in seen and len({str(leader) for leader in seen}) == 1


until(agreed, 30)
(leader,) = leading()
print(f"election timeout {conf.raftMinTimeout:g} to {conf.raftMaxTimeout:g} s", end="; ")
for member in members:
    if member is not leader:
        member.destroy()
alone = until(lambda: not leader._isLeader(), 60)
print(f"it said that it led without the two others for about {round(alone / 5) * 5} s", end="; ")
print(f"leaderFallbackTimeout {conf.leaderFallbackTimeout:g} s")
leader.destroy()
PYTHON
output=$(timeout 120 "$folder/venv/bin/python" "$folder/show.py")

echo "version: $("$folder/venv/bin/pip" --disable-pip-version-check freeze | grep -i '^pysyncobj==')"
echo "behaviour: a leader steps down only 30 s after it has lost its quorum, some twenty times the election timeout after which the others have a new one, so that for half a minute two members may say that they lead"
printf 'output: %s\n' "$output"

if ! [[ $output == "election timeout 0.4 to 1.4 s; it said that it led without the two others for about 30 s; leaderFallbackTimeout 30 s" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
