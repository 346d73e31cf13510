"""Attacks a running daemon of your own and says what it did.

    HELIOSD_PASSWORD=… python -m tests.attacks http://127.0.0.1:8080 --user admin

Exit code 0: the same process runs, no answer was 5xx (503 with Retry-After and 507 aside), no secret came back,
memory grew by at most 64 MiB, `/healthz` took at most 50 ms (p95), and a rightful login at most 2 s. The daemon has
to run on this machine: memory is read from /proc, and the attackers use many loopback addresses.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import msgspec
import trio

from . import floods, requests, rights
from .target import Target
from .watch import Seen

Attack: TypeAlias = Callable[[Target], Awaitable[None]]

ATTACKS: tuple[Attack, ...] = (
    rights.tokens,
    rights.tickets,
    rights.origins,
    rights.routes,
    floods.logins,
    requests.framing,
    requests.addresses,
    requests.bodies,
    requests.queries,
    requests.names,
    requests.races,
    floods.frames,
    floods.messages,
    floods.subscriptions,
    floods.refusals,
    floods.readers,
    floods.held,
)
MIB = 2**20
MOST_BYTES, MOST_LOGIN_SECONDS = 64 * MIB, 2.0


def _pid_listening_on(port: int) -> int:
    """Of this user's processes, the one that listens on this port."""
    inodes = {
        line.split()[9]
        for name in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(name).read_text(encoding="ascii").splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    }
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            return int(link.parts[2])
    raise SystemExit(f"no process of yours listens on port {port}: name it with --pid")


class _Watcher:
    """`watch.py` in a process of its own."""

    def __init__(self, target: Target, pid: int) -> None:
        command = [sys.executable, "-m", "tests.attacks.watch"]
        command += [target.host, str(target.port), str(pid), target.user]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._write(target.password)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def seen(self) -> Seen:
        """What it saw since the last call, and in a look of now: at what an attack leaves behind, too."""
        self._write("")
        assert self._process.stdout is not None
        return msgspec.json.decode(self._process.stdout.readline(), type=Seen)

    def end(self) -> None:
        self._process.communicate()


async def _run(target: Target, attacks: list[Attack], watcher: _Watcher) -> Seen:
    """One attack after the other, a line for each. Returns what the watcher saw in all."""
    total = Seen()
    before = watcher.seen()
    for attack in attacks:
        began = time.monotonic()
        await attack(target)
        seen = watcher.seen()
        total.healthz += seen.healthz
        total.logins += seen.logins
        total.memory_bytes = max(total.memory_bytes, seen.memory_bytes - before.memory_bytes)
        faults = target.faults + seen.faults
        if (slowest := max(seen.logins, default=0.0)) > MOST_LOGIN_SECONDS:
            faults.append(f"a rightful login took {slowest:.1f} s")
        total.faults += faults
        target.faults.clear()
        room = f"{attack.__module__.rpartition('.')[2]}.{attack.__name__}"
        print(
            f"{room:18} {time.monotonic() - began:5.1f} s  {len(faults):3} faults  healthz p95 "
            f"{_p95(seen.healthz) * 1000:5.1f} ms  login {slowest:.1f} s  "
            f"memory +{(seen.memory_bytes - before.memory_bytes) / MIB:.1f} MiB",
            flush=True,
        )
        for fault in faults[:10]:
            print(f"    {fault}", flush=True)
    return total


def _p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.95)] if seconds else 0.0


def _check_process(target: Target, pid: int, log: Path | None) -> None:
    """Its arguments and its log show no secret; no line of the log can be taken for two."""
    try:
        target.heard(Path(f"/proc/{pid}/cmdline").read_bytes(), "the process list")
    except OSError:
        target.fault("the process is gone")
    if log is not None:
        data = log.read_bytes()
        target.heard(data, "the log")
        if re.search(rb"[\x00-\x08\x0b-\x1f\x7f]|\xe2\x80[\xa8\xa9]", data):
            target.fault("the log holds control characters")
        if b"Traceback" in data:
            target.fault("the log holds a traceback")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--pid", type=int)
    parser.add_argument(
        "--other-users", default="", help="users with the same password and fewer rights, with commas"
    )
    parser.add_argument("--log", type=Path, help="the daemon's log, to be searched for secrets")
    parser.add_argument("--signing-key", type=Path, help="the daemon's key, to sign forged tokens rightly")
    parser.add_argument("--healthz-ms", type=float, default=50.0, help="for /healthz (p95); 50")
    parser.add_argument("--only", help="names of attacks, with commas")
    options = parser.parse_args()
    url = urlsplit(options.url)
    target = Target(url.hostname or "", url.port or 80, options.user, os.environ["HELIOSD_PASSWORD"])
    target.other_users = tuple(filter(None, options.other_users.split(",")))
    pid = options.pid or _pid_listening_on(target.port)
    target.token = trio.run(target.new_token)
    if options.signing_key is not None:
        target.signing_key = options.signing_key.read_bytes()
        target.secrets.add(target.signing_key)
    target.secrets |= {target.password.encode(), target.token.rpartition(".")[2].encode()}
    chosen = [each for each in ATTACKS if not options.only or each.__name__ in options.only.split(",")]
    watcher = _Watcher(target, pid)
    try:
        total = trio.run(_run, target, chosen, watcher)
    finally:
        watcher.end()
    _check_process(target, pid, options.log)
    if total.memory_bytes > MOST_BYTES:
        target.fault("memory grew by more than 64 MiB")
    if _p95(total.healthz) * 1000 > options.healthz_ms:
        target.fault(f"/healthz took more than {options.healthz_ms:g} ms (p95)")
    for fault in target.faults:
        print(fault)
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(target.statuses.items()))
    print(
        f"{target.statuses.total()} requests ({statuses}); healthz p95 {_p95(total.healthz) * 1000:.1f} ms; "
        f"slowest login {max(total.logins):.2f} s; memory +{total.memory_bytes / MIB:.1f} MiB; "
        f"{len(total.faults) + len(target.faults)} faults"
    )
    return 1 if total.faults or target.faults else 0


if __name__ == "__main__":
    sys.exit(main())
