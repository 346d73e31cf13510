"""Clients that read nothing, or almost nothing, among many that read: they are cut in time and cost little.

The short form runs in `make test`, the long one in `make prove-connections`.
"""

from __future__ import annotations

import select
import threading
import time
from math import inf
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import Daemon, running, wait_until
from tests.support.deadlines import at_most
from tests.support.event_load import METRICS, EventLoad
from tests.support.raw_client import RawClient, closing
from tests.support.wire import TEXT

MIB = 1024 * 1024
SLACK_SECONDS = 1.0
"""What a busy machine may add to a deadline."""
TRICKLE_BYTES = 1024
FILLING = 60
"""So many events of 4 KB are more than an unread socket takes (128 KiB and its buffers)."""


class Readers:
    """Healthy clients, all read by one thread."""

    def __init__(self, clients: list[RawClient]) -> None:
        self.clients = clients
        self.heard: set[RawClient] = set()
        """Those that have received the metric `last`."""
        self.lost = 0
        self._over = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        poll = select.poll()
        by_descriptor = {client.socket.fileno(): client for client in self.clients}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        while not self._over:
            for descriptor, _ in poll.poll(100):
                client = by_descriptor[descriptor]
                data = client.socket.recv(262_144)
                if not data:
                    self.lost += 1
                    poll.unregister(descriptor)
                for frame in client.frames.feed(data):
                    if frame.opcode == TEXT and b'"last":{' in frame.payload[:200]:
                        self.heard.add(client)

    def end(self) -> None:
        self._over = True
        self._thread.join(30)


def trickle(clients: list[RawClient], over: threading.Event) -> None:
    """Read a kilobyte a second from each."""
    while not over.wait(1.0):
        for client in clients:
            if not client.gone():
                client.socket.setblocking(False)
                try:
                    client.socket.recv(TRICKLE_BYTES)
                except OSError:
                    continue


def register(load: EventLoad, name: str) -> None:
    assert load.ask("POST", METRICS, {"name": name, "type": "gauge", "help": "x" * 4000}) == 201


def never_read(
    folder: Path, *, clients: int, mute: int, trickling: int, events: int, write_timeout: float
) -> None:
    """`events` of 4 KB each, so that a client that does not read falls behind by more than its queue may hold."""
    keys = f"write_timeout = {write_timeout}\nmax_status_bytes = {4 * 1024 * 1024}"
    with running(folder, websocket=keys) as daemon, closing([]) as all_clients:
        token = daemon.token()
        for number in range(clients):
            slow = number < mute + trickling
            all_clients.append(RawClient(daemon, token, receive_buffer=4096 if slow else None))
            all_clients[-1].wait_upgraded()
        slow_ones, healthy = all_clients[: mute + trickling], all_clients[mute + trickling :]
        readers, over = Readers(healthy), threading.Event()
        drops = threading.Thread(target=trickle, args=(slow_ones[mute:], over))
        drops.start()
        try:
            wait_until(lambda: len(listed(daemon, token)) == clients)
            flood(daemon, token, slow_ones, readers, events, write_timeout)
        finally:
            over.set()
            drops.join()
            readers.end()
        assert readers.lost == 0
        assert not [line for line in daemon.lines if line.get("level") == "error"]


def flood(
    daemon: Daemon,
    token: str,
    slow_ones: list[RawClient],
    readers: Readers,
    events: int,
    write_timeout: float,
) -> None:
    load = EventLoad(daemon.address, token, 0.0)
    before, began, highest = daemon.rss_bytes(), time.monotonic(), 0
    full = cut = inf
    for number in range(events):
        register(load, f"m{number}")
        highest = max(highest, daemon.rss_bytes())
        gone = [client.gone() for client in slow_ones]
        assert time.monotonic() > began + write_timeout or not any(gone), "cut too early"
        if number == FILLING:
            full = time.monotonic()
        if all(gone):
            cut = min(cut, time.monotonic())
    register(load, "last")
    wait_until(lambda: len(readers.heard) == len(readers.clients))
    while cut == inf:
        highest = max(highest, daemon.rss_bytes())
        if all(client.gone() for client in slow_ones):
            cut = time.monotonic()
        assert time.monotonic() < full + 120
        time.sleep(0.02)
    each = (highest - before) / len(slow_ones)
    print(
        f"the last was cut {cut - full:.1f} s after its socket was full; "
        f"{each / 1024:.0f} KiB more memory for each that did not read"
    )
    assert cut - full < at_most(write_timeout + 1 + SLACK_SECONDS)
    assert each <= MIB
    wait_until(lambda: len(listed(daemon, token)) == len(readers.clients))


def listed(daemon: Daemon, token: str) -> list[object]:
    """The clients that the daemon knows."""
    answer = httpx.get(
        f"{daemon.url}/api/cluster/clients",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
        verify=False,
    )
    return list(answer.json()["clients"])


def test_10_of_100_that_do_not_read_are_cut_in_time_and_cost_at_most_a_mebibyte_each(tmp_path: Path) -> None:
    never_read(tmp_path, clients=100, mute=8, trickling=2, events=80, write_timeout=1.0)


@pytest.mark.slow
def test_50_of_1000_that_do_not_read_are_cut_in_time_and_cost_at_most_a_mebibyte_each(tmp_path: Path) -> None:
    never_read(tmp_path, clients=1000, mute=45, trickling=5, events=300, write_timeout=10.0)
