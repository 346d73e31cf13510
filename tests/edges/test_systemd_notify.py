"""What systemd hears from the daemon, on a real datagram socket in its place."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from heliosd.daemon.systemd import Notifier, inherited_sockets, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@heliosd-{secrets.token_hex(8)}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(name.replace("@", "\0"))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield receiver


@pytest.fixture
def notifier() -> Iterator[Notifier]:
    with closing(Notifier()) as notifier:
        yield notifier


def test_systemd_gets_each_state(systemd: socket.socket, notifier: Notifier) -> None:
    notifier.ready()
    notifier.status("3 clients\nand a second line, \udcff")
    notifier.watchdog()
    notifier.stopping()
    received = [systemd.recv(1000) for _ in range(4)]
    assert received == [b"READY=1", b"STATUS=3 clients and a second line, ?", b"WATCHDOG=1", b"STOPPING=1"]


def test_a_reload_sends_the_time_at_which_it_began(systemd: socket.socket, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    state, _, since = systemd.recv(1000).decode().partition("\nMONOTONIC_USEC=")
    assert state == "RELOADING=1"
    assert before <= int(since) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_without_systemd_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"):
        monkeypatch.delenv(name, raising=False)
    notifier = Notifier()
    for notify in (notifier.ready, notifier.reloading, notifier.watchdog, notifier.stopping):
        notify()
    notifier.status("fine")
    assert watchdog_interval() is None
    assert list(inherited_sockets()) == []
    assert not caplog.records


@pytest.mark.parametrize(
    "address", ["/nowhere/notify", "@heliosd-nobody-listens", "vsock:2:1", "/" + "x" * 500]
)
def test_a_socket_that_cannot_be_reached_is_logged_once_and_never_raises(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = Notifier()
    notifier.ready()
    notifier.watchdog()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_systemd_that_restarted_is_notified_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    notifier = Notifier()
    for _ in range(2):
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiver:
            receiver.bind(str(path))
            notifier.ready()
            assert receiver.recv(1000) == b"READY=1"
        path.unlink()
        notifier.watchdog()  # nobody receives it


def test_a_systemd_that_does_not_read_blocks_nothing_for_long(
    systemd: socket.socket, notifier: Notifier
) -> None:
    began = time.monotonic()
    notifier.ready()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other, suppress(BlockingIOError):
        other.setblocking(False)
        other.connect(systemd.getsockname())
        while True:
            other.send(b"STATUS=filling the queue")
    notifier.watchdog()
    assert time.monotonic() - began < 10
    received = [systemd.recv(1000)]
    with suppress(BlockingIOError):
        while True:
            received.append(systemd.recv(1000))
    assert received[0] == b"READY=1"
    assert b"WATCHDOG=1" not in received


def test_the_watchdog_is_reset_twice_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_interval() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_interval() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert watchdog_interval() is None


@pytest.mark.parametrize("text", ["", "0", "-5", "soon", "1e6", "²"])
def test_a_watchdog_time_that_is_no_number_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", text)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_interval() is None


def test_sockets_are_ours_only_if_they_were_passed_to_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert list(inherited_sockets()) == [3, 4]
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    assert list(inherited_sockets()) == []
