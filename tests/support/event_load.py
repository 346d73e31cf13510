"""Makes events in a daemon, over its REST API: metrics are registered and deleted, peers added and removed."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

METRICS = "/api/cluster/custom-metrics"
PEERS = "/api/cluster/peers"


@dataclass
class EventLoad:
    """Writers that go on, also while the daemon is away, until the block of `writing` ends."""

    address: str
    token: str
    rate: float
    """Requests a second of all writers together, each of which makes one event."""
    help_characters: int = 40
    """How long an event of a registration is made by its help text."""
    registered: list[str] = field(default_factory=list)
    """Metrics whose registration was answered with 201."""
    answered: int = 0
    """Writes that were answered with 2xx."""
    threads: list[threading.Thread] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def ask(self, method: str, path: str, body: object = None, **query: str) -> int | None:
        """The status; None if there was no answer."""
        connection = http.client.HTTPConnection(self.address, timeout=5)
        try:
            connection.request(
                method,
                f"{path}?{urlencode(query)}" if query else path,
                None if body is None else json.dumps(body),
                {"Authorization": f"Bearer {self.token}"},
            )
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        self.answered += 200 <= status < 300
        return status

    def write_metrics(self, writer: int, pause: float) -> None:
        for number in itertools.count():
            name = f"w{writer}_{number}"
            if self._pause(pause):
                return
            if (
                self.ask("POST", METRICS, {"name": name, "type": "gauge", "help": "x" * self.help_characters})
                != 201
            ):
                continue
            self.registered.append(name)
            if self._pause(pause):
                return
            self.ask("DELETE", METRICS, name=name)

    def change_peers(self, pause: float) -> None:
        for number in itertools.count():
            peer = f"guest-{number}"
            if self._pause(pause):
                return
            self.ask("POST", PEERS, {"id": peer, "address": f"127.0.0.1:{10_000 + number % 50_000}"})
            if self._pause(pause):
                return
            self.ask("DELETE", PEERS, id=peer)

    def _pause(self, seconds: float) -> bool:
        """A request is due a `seconds` after the one before; True: there shall be no more."""
        return self._ended.wait(max(0.0, seconds - time.monotonic() % seconds))

    def end(self) -> None:
        """Return once every request that was under way has been answered or given up."""
        self._ended.set()
        for thread in self.threads:
            thread.join(10)


@contextmanager
def writing(
    address: str, token: str, *, rate: float = 200.0, writers: int = 4, help_characters: int = 40
) -> Iterator[EventLoad]:
    """Events at about `rate` a second, for as long as the block lasts."""
    load = EventLoad(address, token, rate, help_characters)
    load.threads = [
        threading.Thread(target=load.write_metrics, args=(writer, writers / rate), daemon=True)
        for writer in range(writers)
    ]
    load.threads.append(threading.Thread(target=load.change_peers, args=(0.5,), daemon=True))
    for thread in load.threads:
        thread.start()
    try:
        yield load
    finally:
        load.end()
