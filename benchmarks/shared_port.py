"""One heliosd, and two that share a port of one machine by `reuse_port` and an etcd: what their clients cost.

    python -m benchmarks.shared_port --clients 4000     # needs etcd in PATH, and gcc

The daemons share the CPUs with the load client: with two CPUs the figures say what the second daemon costs, with
four or more also what it brings.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .footprint import HASH, cpu_seconds, resident_bytes
from .process import BUILD, HERE, compile_c
from .tokens import write_tokens

CONFIG = """
[node]
id = "{name}"
data_dir = "{data}"
[server]
listen = "127.0.0.1:{port}"
reuse_port = true
[websocket]
status_interval = {interval}
max_clients = 100000
[log]
format = "json"
[auth]
jwt_secret_file = "{secret}"
[[auth.users]]
name = "admin"
password_hash = "{hash}"
roles = ["admin"]
[cluster]
backend = "etcd"
[cluster.etcd]
endpoints = ["{etcd}"]
"""
INTERVAL = 0.1
SETTLE_SECONDS, WINDOW_SECONDS, START_SECONDS = 2.0, 10.0, 30.0


@dataclass(frozen=True, slots=True)
class Row:
    daemons: int
    accepts_per_second: float
    deliveries_per_second: float
    shares: tuple[float, ...]
    """Of one core, each daemon's."""
    mib: tuple[float, ...]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        if process.stderr is not None:
            process.stderr.read()
        process.wait(START_SECONDS)


@contextmanager
def etcd(folder: Path) -> Iterator[str]:
    """One member of its own, without certificates."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    options = {
        "name": "m1",
        "data-dir": str(folder / "etcd"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"m1={peer}",
        "log-level": "error",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with running(["etcd", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        yield client


@contextmanager
def heliosd(config: Path) -> Iterator[int]:
    """The pid of a daemon that is ready."""
    command = [sys.executable, "-m", "heliosd", "serve", "--config", str(config)]
    with running(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(b"{") and json.loads(line).get("event") == "ready":
                break
        else:
            raise SystemExit("heliosd did not become ready")
        yield process.pid


def measure(daemons: int, clients: int, folder: Path) -> Row:
    """So many daemons on one port, with so many clients in all, each with the same token."""
    secret, port = folder / "secret", free_port()
    secret.touch(0o600)
    secret.write_text(secrets.token_hex(32))
    with ExitStack() as until, etcd(folder) as endpoint:
        pids = []
        for number in range(daemons):
            config = folder / f"{number}.toml"
            values = {"name": f"d{number}", "data": folder / f"data{number}", "port": port}
            values |= {"interval": INTERVAL, "secret": secret, "hash": HASH, "etcd": endpoint}
            config.write_text(CONFIG.format(**values))
            pids.append(until.enter_context(heliosd(config)))
        tokens = folder / "tokens"
        write_tokens(tokens, config, "admin", 1)
        target = f"/ws/cluster?types=status&token={tokens.read_text().strip()}"
        load = until.enter_context(
            running(
                [str(BUILD / "load"), f"127.0.0.1:{port}", str(pids[0])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "LOAD_TARGET": target},
            )
        )
        connected = _asked(load, f"connect {clients} 0")
        _asked(load, f"rest {SETTLE_SECONDS}")
        before = [cpu_seconds(pid) for pid in pids]
        window = _asked(load, f"count {WINDOW_SECONDS}")
        spent = [cpu_seconds(pid) - used for pid, used in zip(pids, before, strict=True)]
        return Row(
            daemons,
            clients / connected["connect_seconds"],
            window["deliveries"] / window["seconds"],
            tuple(each / window["seconds"] for each in spent),
            tuple(resident_bytes(pid) / 2**20 for pid in pids),
        )


def _asked(load: subprocess.Popen[bytes], command: str) -> dict[str, float]:
    assert load.stdin is not None
    assert load.stdout is not None
    load.stdin.write(f"{command}\n".encode())
    load.stdin.flush()
    line = load.stdout.readline()
    if not line:
        raise SystemExit(f"the load client ended at: {command}")
    answer: dict[str, float] = json.loads(line)
    return answer


def main() -> None:
    """Print a line for one daemon and one for two."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=4000)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    compile_c(HERE / "load.c", BUILD / "load")
    for daemons in (1, 2):
        with tempfile.TemporaryDirectory(prefix="heliosd-port-") as folder:
            row = measure(daemons, options.clients, Path(folder))
        share = sum(row.shares)
        print(
            f"{daemons} on the port: {row.accepts_per_second:,.0f} accepts/s, "
            f"{row.deliveries_per_second:,.0f} deliveries/s, {share:.0%} of a core in all "
            f"({', '.join(f'{each:.0%}' for each in row.shares)}), "
            f"{share / row.deliveries_per_second * 1e6:.1f} µs a delivery, "
            f"{', '.join(f'{each:.0f}' for each in row.mib)} MiB"
        )
        time.sleep(1)  # ports of the clients


if __name__ == "__main__":
    main()
