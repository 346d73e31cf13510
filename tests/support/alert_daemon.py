"""A whole heliosd whose cluster obeys standard input, and a receiver of its alerts: for tests that kill it.

    python -m tests.support.alert_daemon CONFIG LEADER

Lines on standard input: `lose`, or `elect NAME`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trio

from heliosd.daemon import logs, tree
from heliosd.daemon.main import prepare
from heliosd.daemon.referenced_files import load_checked
from heliosd.protocol.events import Event, Happened

from .alert_harness import ClusterStandIn, elected, lost
from .daemon_process import Daemon, logging_process
from .whole_daemon import Source


class CommandedCluster(ClusterStandIn, Source):
    """A cluster whose leader standard input says."""

    async def carry_out(self) -> None:
        async with trio.lowlevel.FdStream(0) as commands:
            rest = b""
            async for data in commands:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._carry_out(*line.decode().split())

    def _carry_out(self, verb: str, name: str = "") -> None:
        event: Event = lost(self.leader) if verb == "lose" else elected(name)
        self.leader = name
        self.put(Happened(event))


async def main(config_path: Path, leader: str) -> None:
    config = load_checked(config_path)
    logs.configure(config.log.level, config.log.format)
    cluster = CommandedCluster()
    cluster.leader = leader
    vars(tree)["backend_of"] = lambda *_: cluster
    prepared = prepare(config_path, config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.carry_out)
        await prepared.run()


@contextmanager
def commanded(folder: Path, config: Path, leader: str) -> Iterator[Daemon]:
    """This heliosd as a process, with its data under `folder`; `leader` is the cluster's at its start."""
    state = folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "tests.support.alert_daemon", str(config), leader]
    with logging_process(command, config, {"STATE_DIRECTORY": str(state)}, stdin=True) as daemon:
        daemon.wait_listening()
        yield daemon


def carry_out(daemon: Daemon, line: str) -> None:
    """Its cluster does what the line says."""
    assert daemon.process.stdin is not None
    daemon.process.stdin.write(f"{line}\n".encode())
    daemon.process.stdin.flush()


@dataclass
class Receiver:
    """What came to the webhook, by the thread that serves it."""

    secret: bytes
    manner: str = "well"
    """`well`, `status 503`, `hangs up`, or `takes and hangs up`."""
    got: list[dict[str, Any]] = field(default_factory=list)
    forged: int = 0
    url: str = ""

    @property
    def ids(self) -> list[str]:
        return list(dict.fromkeys(each["id"] for each in self.got))

    def take(self, body: bytes, signature: str | None) -> None:
        expected = "sha256=" + hmac.new(self.secret, body, hashlib.sha256).hexdigest()
        if signature != expected:
            self.forged += 1
        self.got.append(json.loads(body))


@contextmanager
def receiving(secret: bytes) -> Iterator[Receiver]:
    """A webhook on the loopback."""
    receiver = Receiver(secret)

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            manner = receiver.manner
            if manner in {"well", "takes and hangs up"}:
                receiver.take(body, self.headers["X-Heliosd-Signature"])
            if manner.endswith("hangs up"):
                self.close_connection = True
                return
            status, _, location = manner.removeprefix("status ").partition(" to ")
            self.send_response(int(status) if manner.startswith("status") else 204)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
