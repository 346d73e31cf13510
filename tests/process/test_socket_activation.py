"""heliosd under systemd: a socket passed in, and datagrams to $NOTIFY_SOCKET."""

from __future__ import annotations

import json
import signal
import socket as stdlib
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import Daemon, logging_process, running, wait_until, write_config
from tests.support.deadlines import SECONDS
from tests.support.ports import free_port

WATCHDOG_USEC = 500_000


class Notices:
    """A socket as systemd's own, and all that was sent to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.received: list[str] = []
        self._socket = stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while text := self._socket.recv(4096).decode():
            self.received.append(text)

    def close(self) -> None:
        with stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(self.path))  # ends the thread
        self._thread.join(SECONDS)
        self._socket.close()

    def count(self, notice: str) -> int:
        return sum(text.split("\n")[0] == notice for text in self.received)

    def wait(self, notice: str, times: int = 1) -> None:
        wait_until(lambda: self.count(notice) >= times)


@contextmanager
def activated(folder: Path, notices: Notices) -> Iterator[Daemon]:
    """systemd's listener in front of a daemon that starts when the first connection comes."""
    config = write_config(folder, listen="fd:3")
    (folder / "state").mkdir(mode=0o700)
    address = f"127.0.0.1:{free_port()}"
    passed = {
        "STATE_DIRECTORY": str(folder / "state"),
        "NOTIFY_SOCKET": str(notices.path),
        "WATCHDOG_USEC": str(WATCHDOG_USEC),
    }
    command = ["systemd-socket-activate", "-l", address]
    command += [f"--setenv={name}={value}" for name, value in passed.items()]
    command += [sys.executable, "-m", "heliosd", "serve", "--config", str(config)]
    with logging_process(command, config, {}) as daemon:
        daemon.address = address
        daemon.wait_logged(lambda line: line["event"].startswith("Listening on"))
        yield daemon


@pytest.mark.needs("systemd-socket-activate")
def test_a_socket_of_systemd_starts_the_daemon_with_the_first_connection(tmp_path: Path) -> None:
    with closing(Notices(tmp_path)) as notices, activated(tmp_path, notices) as daemon:
        assert notices.received == []
        # This connection is older than the daemon, which answers it as soon as it is up.
        assert httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200
        ready = daemon.wait_logged(lambda line: line["event"] == "ready")
        assert ready["address"] == daemon.address
        daemon.wait_ready()
        notices.wait("READY=1")
        with daemon.connect(daemon.token()) as socket:
            assert json.loads(socket.recv(SECONDS))["type"] == "status"
        notices.wait("WATCHDOG=1", 3)
        assert daemon.stop() == 0
        notices.wait("STOPPING=1")
        assert notices.received.index("READY=1") < notices.received.index("STOPPING=1")


def test_a_reload_is_reported_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    with (
        closing(Notices(tmp_path)) as notices,
        running(tmp_path, env={"NOTIFY_SOCKET": str(notices.path)}) as daemon,
    ):
        notices.wait("READY=1")
        daemon.process.send_signal(signal.SIGHUP)
        notices.wait("READY=1", 2)
        (began,) = (text for text in notices.received if text.startswith("RELOADING=1\n"))
        assert began.split("\n")[1].removeprefix("MONOTONIC_USEC=").isdecimal()
        daemon.config.write_text("not a config", encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        notices.wait("READY=1", 3)  # a broken file leaves the daemon as ready as it was
        assert notices.count("RELOADING=1") == 2
        assert daemon.stop() == 0
        notices.wait("STOPPING=1")
        assert notices.count("WATCHDOG=1") == 0  # the environment does not ask for it


@pytest.mark.extended
def test_a_reload_while_the_daemon_starts_comes_after_ready(tmp_path: Path) -> None:
    # Without its etcd a start waits a while for the cluster's event log.
    etcd = f'[cluster]\nbackend = "etcd"\n[cluster.etcd]\nendpoints = ["http://127.0.0.1:{free_port()}"]'
    config = write_config(tmp_path, cluster=etcd)
    (tmp_path / "state").mkdir(mode=0o700)
    command = [sys.executable, "-m", "heliosd", "serve", "--config", str(config)]
    with closing(Notices(tmp_path)) as notices:
        passed = {"STATE_DIRECTORY": str(tmp_path / "state"), "NOTIFY_SOCKET": str(notices.path)}
        with logging_process(command, config, passed) as daemon:
            daemon.wait_logged(lambda line: line["event"].startswith("etcd:"))
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_logged(lambda line: line["event"] == "configuration reloaded")
            notices.wait("READY=1", 2)
            kinds = [text.split("\n")[0] for text in notices.received if not text.startswith("STATUS=")]
            assert kinds == ["READY=1", "RELOADING=1", "READY=1"]
            assert daemon.stop() == 0


def test_an_inherited_socket_that_is_not_there_is_a_failed_start_with_its_reason(tmp_path: Path) -> None:
    config = write_config(tmp_path, listen="fd:3")
    (tmp_path / "state").mkdir(mode=0o700)
    command = [sys.executable, "-m", "heliosd", "serve", "--config", str(config)]
    with logging_process(command, config, {"STATE_DIRECTORY": str(tmp_path / "state")}) as daemon:
        logged = daemon.wait_logged(lambda line: line.get("level") == "error")
        assert "fd:3" in logged["reason"]
        assert daemon.process.wait(SECONDS) in {1, 2}


def test_a_notify_socket_without_a_listener_is_logged_once(tmp_path: Path) -> None:
    gone = str(tmp_path / "no-listener-here")
    with running(tmp_path, env={"NOTIFY_SOCKET": gone}) as daemon:
        assert daemon.stop() == 0
        warnings = [line for line in daemon.lines if "cannot notify" in line["event"]]
        assert len(warnings) == 1
