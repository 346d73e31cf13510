"""A certificate that is renewed again and again while clients connect; `make prove-certificates`.

The short form, one renewal, is in test_tls_and_ipv6.py.
"""

from __future__ import annotations

import signal
import socket as stdlib
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from tests.support.daemon_process import Daemon, running, wait_until
from tests.support.deadlines import MEASURES, SECONDS, at_most

SWAPS = 50
HANDSHAKES_A_SECOND = 50.0
THREADS = 16
RENEWED, UNUSABLE = "certificate renewed", "certificate not usable; the old one stays in use"


@dataclass
class Handshakes:
    """Clients that connect, ask for `/healthz` and leave, at an even rate, which what takes long does not lower."""

    address: tuple[str, int]
    served: dict[bytes, float] = field(default_factory=dict)
    """Each certificate that was served (DER), and when it was first."""
    refused: list[str] = field(default_factory=list)
    made: int = 0
    last: bytes = b""
    """The certificate that was served last."""

    def make(self, over: threading.Event, due: float) -> None:
        """One thread's share, the first at `due`; those that are late follow without a pause."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while not over.wait(due - time.monotonic()):
            due += THREADS / HANDSHAKES_A_SECOND
            try:
                with (
                    stdlib.create_connection(self.address, SECONDS) as plain,
                    context.wrap_socket(plain) as socket,
                ):
                    served = socket.getpeercert(binary_form=True) or b""
                    socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answer = socket.recv(65_536)
            except OSError as error:
                self.refused.append(repr(error))
                continue
            if not answer.startswith(b"HTTP/1.1 200 "):
                self.refused.append(repr(answer[:60]))
            self.served.setdefault(served, time.monotonic())
            self.last = served
            self.made += 1


@contextmanager
def handshakes(daemon: Daemon) -> Iterator[Handshakes]:
    """Until the block ends."""
    host, port = daemon.address.rsplit(":", 1)
    load, over = Handshakes((host, int(port))), threading.Event()
    now = time.monotonic()
    threads = [
        threading.Thread(target=load.make, args=(over, now + number / HANDSHAKES_A_SECOND))
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        over.set()
        for thread in threads:
            thread.join(2 * SECONDS)


def der(cert: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(cert.read_text())


def logged(daemon: Daemon, event: str) -> int:
    return sum(line["event"] == event for line in daemon.lines)


@pytest.mark.slow
def test_50_renewed_certificates_are_served_in_time_and_50_broken_ones_change_nothing(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    server = f'tls_cert = "{cert}"\ntls_key = "{key}"'
    with running(tmp_path, server=server) as daemon, handshakes(daemon) as load:
        began, waits = time.monotonic(), []
        for number in range(SWAPS):
            new_cert, new_key = self_signed(drafts)
            cert.write_bytes(new_cert.read_bytes())  # in place, one after the other, as renewal programs do
            key.write_bytes(new_key.read_bytes())
            at, new = time.monotonic(), der(cert)
            if number % 2:
                daemon.process.send_signal(signal.SIGHUP)
            wait_until(lambda: new in load.served)  # noqa: B023
            waits.append(load.served[new] - at)
        seconds = time.monotonic() - began
        served = load.last
        assert served == der(cert)
        assert logged(daemon, RENEWED) == SWAPS
        swapped_at = load.made
        good_cert, good_key = cert.read_bytes(), key.read_bytes()
        other_key = self_signed(drafts)[1].read_bytes()
        broken = cycle(
            [
                (good_cert[:200], good_key),
                (good_cert, other_key),
                (b"", good_key),
                (good_cert, b"no key"),
                (None, good_key),
            ]
        )
        lines = logged(daemon, UNUSABLE)
        for number in range(SWAPS):
            bad_cert, bad_key = next(broken)
            key.write_bytes(bad_key)
            if bad_cert is None:
                cert.unlink()
            else:
                cert.write_bytes(bad_cert)
            if number % 2:
                daemon.process.send_signal(signal.SIGHUP)
            wait_until(lambda: logged(daemon, UNUSABLE) > lines)  # noqa: B023
            lines += 1
            assert logged(daemon, UNUSABLE) == lines
            assert load.last == served
        cert.write_bytes(good_cert)
        key.write_bytes(good_key)
        wait_until(lambda: logged(daemon, RENEWED) == SWAPS + 1)
    rate = swapped_at / seconds
    print(
        f"\n{load.made} handshakes, {rate:.1f} a second during {SWAPS} renewals, "
        f"each served after {max(waits):.2f} s at most; {SWAPS} broken pairs, {lines} lines"
    )
    assert load.refused == []
    assert rate > 0.95 * HANDSHAKES_A_SECOND or not MEASURES
    assert max(waits) < at_most(2)
    assert lines == SWAPS
    assert not [line for line in daemon.lines if line.get("level") == "critical"]
