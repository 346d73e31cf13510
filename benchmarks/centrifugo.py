"""Centrifugo as a server to measure: its module is built here; it delivers over its unidirectional WebSocket."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from .peers.centrifugo_publisher import CHANNEL
from .process import BUILD, HERE, STOP_SECONDS, Running, Task, launched, output

MODULE = HERE / "peers" / "centrifugo"
PACKAGE = "github.com/centrifugal/centrifugo/v6"
PROGRAM = BUILD / "centrifugo"
BUILD_SECONDS = 1200.0
OLDEST_GO = (1, 26)
CONNECT: dict[str, object] = {"subs": {CHANNEL: {}}}


class Centrifugo:
    """Each client subscribes to one channel as it connects, without a token; each beat is published to it."""

    name = "centrifugo"
    speaks_tls = True

    def missing(self) -> str:
        if not shutil.which("go"):
            return "go (golang-go)"
        version = re.search(r"go(\d+)\.(\d+)", output(["go", "version"]))
        new_enough = version is not None and (int(version[1]), int(version[2])) >= OLDEST_GO
        return "" if new_enough or PROGRAM.exists() else "go 1.26 or newer (https://go.dev/dl)"

    def build(self) -> None:
        """The first time takes minutes and needs Go's module proxy; then the program stays."""
        if PROGRAM.exists() and PROGRAM.stat().st_mtime > (MODULE / "go.mod").stat().st_mtime:
            return
        command = ["go", "build", "-trimpath", "-o", str(PROGRAM), PACKAGE]
        output(command, cwd=MODULE, seconds=BUILD_SECONDS)

    def version(self) -> str:
        built = output(["go", "version", "-m", str(PROGRAM)]).split()
        return f"{built[1]}, centrifugo {built[built.index('mod') + 2] if 'mod' in built else ''}"

    def start(self, task: Task) -> Iterator[Running]:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        config = task.scratch / "centrifugo.json"
        config.write_text(json.dumps(_config(port, task.certificate)))
        scheme = "http" if task.certificate is None else "https"
        with (task.scratch / "centrifugo.log").open("wb") as log:
            process = subprocess.Popen(
                ["taskset", "-c", task.cpus, str(PROGRAM), "--config", str(config)],
                stdout=log,
                stderr=log,
            )
        try:
            publisher = [sys.executable, "-m", "benchmarks.peers.centrifugo_publisher"]
            arguments = [f"{scheme}://127.0.0.1:{port}", str(task.interval * 1000), str(task.message_bytes)]
            with launched([*publisher, *arguments], task) as (_, address):
                target = f"/connection/uni_websocket?cf_connect={quote(json.dumps(CONNECT))}"
                yield Running(self.name, process.pid, address, target)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _config(port: int, certificate: Path | None) -> dict[str, object]:
    """No tokens, no history, no pings while others are measured beside it."""
    tls = {"enabled": True, "cert_pem": str(certificate), "key_pem": str(certificate)}
    return {
        "http_server": {"address": "127.0.0.1", "port": port, **({"tls": tls} if certificate else {})},
        "http_api": {"insecure": True},
        "client": {
            "allow_anonymous_connect_without_token": True,
            "ping_interval": "9m",
            "pong_timeout": "1m",
        },
        "channel": {
            "without_namespace": {
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
            }
        },
        "uni_websocket": {"enabled": True},
        "log": {"level": "error"},
    }
