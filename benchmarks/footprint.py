"""What a daemon without clients takes: memory, CPU, wakings, and the time until it is ready.

    python -m benchmarks.footprint                          # ten starts on the simulated backend; medians
    python -m benchmarks.footprint --etcd http://127.0.0.1:2379
    python -m benchmarks.footprint --python .venv/bin/python --python OTHER/.venv/bin/python   # in turns
    python -m benchmarks.footprint --parts                  # what each part takes when it is imported

Each is a first start: a configuration that says as little as possible, and an empty data directory. Afterwards a
start of the simulated backend also waits for its members to elect a leader.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HASH = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmUuLg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""Of no known password: nobody logs in."""
CONFIG = """
[node]
data_dir = "{data}"
[server]
listen = "127.0.0.1:0"
[log]
format = "json"
[[auth.users]]
name = "admin"
password_hash = "{hash}"
roles = ["admin"]
"""
ETCD = """
[cluster]
backend = "etcd"
[cluster.etcd]
endpoints = {endpoints}
"""
DATA = "data"
START_SECONDS = 30.0
SETTLE_SECONDS = 3.0
"""What a start leaves to do is done then."""

PARTS = (
    ("the interpreter", ""),
    ("dataclasses, typing, logging", "dataclasses typing logging"),
    ("OpenSSL, for HMAC and TLS", "hashlib ssl"),
    ("structlog, with asyncio", "structlog"),
    ("Trio", "trio"),
    ("msgspec, tomllib", "msgspec tomllib"),
    ("SQLite", "sqlite3"),
    ("wsproto and h11", "wsproto"),
    ("argon2", "argon2"),
    ("heliosd: daemon", "heliosd.cli.main heliosd.cli.serve heliosd.daemon.main"),
    ("heliosd: simulated cluster", "heliosd.cluster.simulated.backend"),
    ("httpx, with alerts or an outside issuer", "httpx"),
    ("heliosd: etcd", "heliosd.cluster.etcd.backend"),
    ("PyJWT and cryptography, with an outside issuer", "heliosd.web.jwks_request"),
    ("prometheus_client, on the first scrape", "heliosd.web.rest.scrape"),
    ("Quart, on the first request that is no plain read", "heliosd.web.rest.app"),
)
"""In the order in which they are imported: what two of them share is counted with the first."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one start. Memory is resident memory, also of what other processes have in memory as well."""

    ready_seconds: float
    start_cpu_seconds: float
    resident_bytes: int
    core_share: float
    wakings_per_second: float


def resident_bytes(pid: int | str = "self") -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads that still run."""
    schedstats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(schedstat.read_text().split()[0]) for schedstat in schedstats) / 1e9


def wakings(pid: int) -> int:
    """How often any thread of the process has gone to sleep, and so was woken."""
    statuses = [status.read_text() for status in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(
        int(line.split()[1])
        for status in statuses
        for line in status.splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


@contextmanager
def started(python: str, config: Path) -> Iterator[tuple[int, float, float]]:
    """A daemon that is ready: its pid, the seconds since it was executed, and the CPU seconds that it took."""
    shutil.rmtree(config.parent / DATA, ignore_errors=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        [python, "-m", "heliosd", "serve", "--config", str(config)],
        stderr=subprocess.PIPE,
        cwd=config.parent,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if json.loads(line).get("event") == "ready":
                break
        else:
            raise SystemExit(f"{python} did not become ready")
        yield process.pid, time.monotonic() - begun, cpu_seconds(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        process.wait(START_SECONDS)


def measure(python: str, config: Path, seconds: float) -> Footprint:
    """One start, and the next `seconds` after what a start leaves to do."""
    with started(python, config) as (pid, ready, start_cpu):
        time.sleep(SETTLE_SECONDS)
        woken, used, since = wakings(pid), cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - since
        return Footprint(
            ready,
            start_cpu,
            resident_bytes(pid),
            (cpu_seconds(pid) - used) / passed,
            (wakings(pid) - woken) / passed,
        )


def write_config(folder: Path, endpoints: Sequence[str] = ()) -> Path:
    """A configuration for the simulated backend, or for these endpoints of etcd."""
    text = CONFIG.format(data=folder / DATA, hash=HASH)
    path = folder / "heliosd.toml"
    path.write_text(text + (ETCD.format(endpoints=json.dumps(list(endpoints))) if endpoints else ""))
    return path


def medians(all_of_them: Sequence[Footprint]) -> Footprint:
    return Footprint(*(median(column) for column in zip(*map(_values, all_of_them), strict=True)))


def _values(one: Footprint) -> tuple[float, ...]:
    return (
        one.ready_seconds,
        one.start_cpu_seconds,
        one.resident_bytes,
        one.core_share,
        one.wakings_per_second,
    )


def show(name: str, found: Footprint) -> str:
    return (
        f"{name}: ready after {found.ready_seconds:.2f} s ({found.start_cpu_seconds:.2f} s of CPU), "
        f"{found.resident_bytes / 2**20:.1f} MiB, {found.core_share:.2%} of a core, "
        f"{found.wakings_per_second:.1f} wakings a second"
    )


def parts() -> Iterator[str]:
    """A table: what the import of each part adds to the resident memory, and its CPU time."""
    yield "| part | MiB | ms of CPU | modules |"
    yield "| --- | ---: | ---: | ---: |"
    before = 0
    for name, modules in PARTS:
        known, begun = len(sys.modules), time.process_time()
        for module in modules.split():
            __import__(module)
        took, now = time.process_time() - begun, resident_bytes()
        cells = name, f"{(now - before) / 2**20:.1f}", f"{took * 1000:.0f}", str(len(sys.modules) - known)
        yield f"| {' | '.join(cells)} |"
        before = now


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each start is looked at")
    parser.add_argument("--python", action="append", default=[], help="of another installation of heliosd")
    parser.add_argument("--etcd", nargs="+", default=[], metavar="URL", help="its endpoints")
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    if options.parts:
        for line in parts():
            print(line)
        return
    pythons = [os.path.abspath(each) for each in options.python] or [sys.executable]  # noqa: PTH100 (no symlink)
    found: dict[str, list[Footprint]] = {python: [] for python in pythons}
    with tempfile.TemporaryDirectory(prefix="heliosd-footprint-") as scratch:
        configs = {}
        for number, python in enumerate(pythons):
            folder = Path(scratch, str(number))
            folder.mkdir()
            configs[python] = write_config(folder, options.etcd)
            with started(python, configs[python]):
                pass  # its modules are compiled now
        for _ in range(options.starts):
            for python in pythons:
                found[python].append(measure(python, configs[python], options.seconds))
    for python in pythons:
        print(show(python, medians(found[python])))


if __name__ == "__main__":
    main()
