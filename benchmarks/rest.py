"""Requests a second on `GET /api/cluster/status`, beside another checkout of heliosd and uvicorn with Starlette.

    python -m benchmarks.rest [--other CHECKOUT PYTHON] [--connections 64] [--seconds 3] [--rounds 5] [--close]

The load is wrk's (Debian's package wrk). Each server runs alone on one core and wrk on the others; rounds alternate
between the servers, so that a busy machine slows all of them, and ratios are of the medians. Starlette's app checks
a JWT by PyJWT and answers the very bytes that heliosd answered.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PATH = "/api/cluster/status"
CONFIG = """
[node]
data_dir = "{data_dir}"
[server]
listen = "127.0.0.1:{port}"
[log]
level = "error"
[auth]
jwt_secret_file = "{secret}"
[[auth.users]]
name = "bench"
password_hash = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmUuLg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
roles = ["viewer"]
"""
SECRET = "a secret for the benchmark only, of forty-eight bytes"


@dataclass
class Server:
    name: str
    url: str
    token: str
    rates: list[float] = field(default_factory=list)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def _process(command: list[str], cwd: Path, env: dict[str, str]) -> Iterator[None]:
    pinned = ["taskset", "-c", "0", *command]
    process = subprocess.Popen(pinned, cwd=cwd, env=os.environ | env, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _answer(url: str, token: str, patience: float = 30.0) -> bytes:
    """The answer's body, as soon as the server gives one."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    until = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@contextmanager
def heliosd(name: str, checkout: Path, python: str, folder: Path) -> Iterator[Server]:
    folder.mkdir()
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    config, port = folder / "config.toml", _free_port()
    config.write_text(CONFIG.format(data_dir=folder / "data", port=port, secret=secret))
    command = [python, "-m", "heliosd", "token", "--config", str(config), "--user", "bench"]
    made = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    token = made.stdout.split()[-1]
    with _process([python, "-m", "heliosd", "serve", "--config", str(config)], checkout, {}):
        server = Server(name, f"http://127.0.0.1:{port}{PATH}", token)
        _answer(server.url, token)
        yield server


@contextmanager
def starlette(name: str, token: str, body: bytes, options: list[str]) -> Iterator[Server]:
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.peers.starlette_app:app", "--port", str(port)]
    command += ["--log-level", "error", "--no-access-log", *options]
    env = {"BENCH_SECRET": SECRET, "BENCH_BODY": body.decode()}
    with _process(command, ROOT, env):
        server = Server(name, f"http://127.0.0.1:{port}{PATH}", token)
        _answer(server.url, token)
        yield server


def measure(server: Server, connections: int, seconds: float, *, close: bool) -> float:
    cores = os.cpu_count() or 1
    command = ["taskset", "-c", f"1-{cores - 1}"] if cores > 1 else []
    command += [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "-H",
        f"Authorization: Bearer {server.token}",
    ]
    command += ["-H", "Connection: close"] if close else []
    done = subprocess.run([*command, server.url], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"{server.name}: {done.stdout}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rest", description=__doc__)
    parser.add_argument("--other", nargs=2, metavar=("CHECKOUT", "PYTHON"))
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--close", action="store_true", help="a connection for each request")
    options = parser.parse_args()
    with TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        own = stack.enter_context(heliosd("heliosd", ROOT, sys.executable, folder / "own"))
        body = _answer(own.url, own.token)
        servers = [own]
        if options.other:
            checkout, python = options.other
            other = heliosd(f"heliosd of {checkout}", Path(checkout), python, folder / "other")
            servers.append(stack.enter_context(other))
        plain = ["--loop", "asyncio", "--http", "h11"]
        servers.append(stack.enter_context(starlette("Starlette, uvicorn", own.token, body, plain)))
        quick = ["--loop", "uvloop", "--http", "httptools"]
        servers.append(stack.enter_context(starlette("Starlette, uvicorn[standard]", own.token, body, quick)))
        for _ in range(options.rounds):
            for server in servers:
                server.rates.append(
                    measure(server, options.connections, options.seconds, close=options.close)
                )
        best = median(own.rates)
        for server in servers:
            rate = median(server.rates)
            rates = json.dumps([round(each) for each in server.rates])
            print(f"{server.name:32} {rate:8.0f}/s   heliosd x {best / rate:.2f}   {rates}")


if __name__ == "__main__":
    main()
