"""The Debian package on Debian 12 and 13: installed, started as its unit does, upgraded under clients, removed.

It takes root, debootstrap and two packages, which it builds (make prove-deb).
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket as stdlib
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from heliosd import __version__
from heliosd.auth.passwords import hash_password
from tests.support.daemon_process import PASSWORD, Daemon, wait_until
from tests.support.deadlines import SECONDS
from tests.support.debian_root import build_package, debian_root, renumbered

CLIENTS = int(os.environ.get("CLIENTS", "20"))
USERS = f"""
[[auth.users]]
name = "admin"
password_hash = "{hash_password(PASSWORD)}"
roles = ["admin"]
"""
METRICS = "/api/cluster/metrics"


@dataclass
class Client:
    """Follows the events, and comes back at once with its cursor whenever it is cut."""

    url: str
    token: str
    stop: threading.Event
    cursor: str = "after=now"
    welcomes: list[dict[str, object]] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def follow(self) -> None:
        while not self.stop.is_set():
            try:
                with connect(
                    f"{self.url}/ws/cluster?token={self.token}&{self.cursor}", open_timeout=SECONDS
                ) as socket:
                    while True:
                        self.take(json.loads(socket.recv()))
            except ConnectionClosed:
                pass
            except (OSError, InvalidStatus) as error:
                self.refused.append(repr(error))

    def take(self, message: dict[str, object]) -> None:
        if message["type"] == "welcome":
            welcome = message["data"]
            assert isinstance(welcome, dict)
            self.welcomes.append(welcome)
            if self.cursor == "after=now":
                self.cursor = f"epoch={welcome['epoch']}&after={welcome['seq']}"
                self.seqs.append(welcome["seq"])
        elif isinstance(seq := message.get("seq"), int):
            self.seqs.append(seq)
            self.cursor = re.sub("after=.*", f"after={seq}", self.cursor)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An older and a newer one."""
    folder = tmp_path_factory.mktemp("packages")
    older = build_package(folder)
    return older, renumbered(older, "1")


@pytest.mark.slow
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_the_package_installs_runs_upgrades_under_clients_and_leaves_nothing(
    release: str, packages: tuple[Path, Path], tmp_path: Path
) -> None:
    older, newer = packages
    with debian_root(release, tmp_path) as root, ExitStack() as ended:
        before = root.files()
        root.install(older)
        config = root.path / "etc/heliosd/heliosd.toml"
        assert config.stat().st_mode & 0o777 == 0o640
        assert root.run("stat", "-c", "%U:%G", "/etc/heliosd/heliosd.toml") == "root:heliosd\n"
        assert not list((root.path / "var/lib/heliosd").iterdir())  # nothing was started
        assert root.run("heliosd", "--version") == f"heliosd {__version__}\n"
        assert root.run("heliosd", "check-config", "/etc/heliosd/heliosd.toml").endswith(": ok\n")
        text = config.read_text().replace('listen = "127.0.0.1:8080"', 'listen = "fd:3"')
        config.write_text(text + USERS)

        listener = ended.enter_context(stdlib.create_server(("127.0.0.1", 0), backlog=4096))
        with root.service(listener) as daemon:
            daemon.wait_ready()
            with daemon.client() as http:
                http.post(METRICS, json={"name": "jobs", "type": "gauge"}).raise_for_status()
                http.put(METRICS, json={"name": "jobs", "value": 7}).raise_for_status()
            clients, threads = follow(daemon, ended)
            root.run("heliosd", "backup", "--config", "/etc/heliosd/heliosd.toml", "/tmp/backup.tar")
            root.install(newer)
            # As systemd restarts it behind the socket, which stays open.
            assert daemon.stop(signal.SIGTERM) == 0
        assert "\nVersion: " + f"{__version__}-1\n" in root.run("dpkg-query", "--status", "heliosd")
        with root.service(listener) as daemon:
            daemon.wait_ready()
            with daemon.client() as http:
                assert http.get(f"{METRICS}?name=jobs").json()["value"] == 7
                http.post(METRICS, json={"name": "after", "type": "gauge"}).raise_for_status()
            wait_until(lambda: all(len(client.welcomes) > 1 for client in clients))
            newest = max(client.seqs[-1] for client in clients)
            wait_until(lambda: all(client.seqs[-1] >= newest for client in clients))
            clients[0].stop.set()
            assert daemon.stop(signal.SIGTERM) == 0
        for thread in threads:
            thread.join(SECONDS)
        for client in clients:
            assert client.refused == []
            assert [welcome["recovered"] for welcome in client.welcomes] == [True] * len(client.welcomes)
            assert client.seqs == list(range(client.seqs[0], client.seqs[-1] + 1))

        root.run("dpkg", "--remove", "heliosd")
        left = {name for name in root.files() - before if not name.startswith("/var/lib/heliosd/")}
        assert left == {"/etc/heliosd", "/etc/heliosd/heliosd.toml", "/var/lib/heliosd"}
        assert (root.path / "var/lib/heliosd/heliosd.db").exists()
        root.run("dpkg", "--purge", "heliosd")
        assert root.files() == before
        assert "heliosd" not in (root.path / "etc/passwd").read_text()


def follow(daemon: Daemon, ended: ExitStack) -> tuple[list[Client], list[threading.Thread]]:
    """Clients that have been welcomed; `ended` ends them."""
    stop, token = threading.Event(), daemon.token()
    ended.callback(stop.set)
    clients = [Client(f"ws://{daemon.address}", token, stop) for _ in range(CLIENTS)]
    threads = [threading.Thread(target=client.follow, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(client.welcomes for client in clients))
    return clients, threads
