"""Holds a running heliosd to docs/protocol.md, from outside, with clients of all kinds.

    HELIOSD_PASSWORD=… python -m tests.support.promise_checker http://127.0.0.1:8080 --clients 30 --seconds 600

Clients subscribe to this and that, ask, stop reading, are cut and resume, while metrics and peers come and go.
Every connection is recorded and checked by `promise_rules.py` against all events that happened; in the end the
clients' pictures of the metrics are compared with the daemon's. The daemon may be restarted or killed meanwhile.

Exit code 0: every promise held. 1: standard error says which was broken. 2: it could not be checked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .event_load import METRICS, EventLoad, writing
from .promise_rules import EVERYTHING, KEYS, Message, Record, content, picture, violations
from .sequence_checker import CannotCheck, log_in, small_socket

AWAY_SECONDS = 60.0
SETTLE_SECONDS = 60.0
GAUGES = tuple(f"gauge_{number}" for number in range(8))
Filter = dict[str, Any]


def random_filter(rng: random.Random) -> Filter:
    """A subscription that a client might ask for."""
    chosen: Filter = {key: True for key in KEYS if rng.random() < 0.6}
    if rng.random() < 0.4:
        chosen["custom_metrics"] = {"names": rng.choice([["gauge_*"], ["w1_*", "gauge_3"], ["*"]])}
        if rng.random() < 0.5:
            chosen["custom_metrics"]["min_interval"] = rng.choice([0.2, 1.0])
    if rng.random() < 0.3:
        chosen["peer_changes"] = {"events": ["removed"]}
    if rng.random() < 0.3:
        chosen["status"] = {"min_interval": 0.5}
    return chosen


@dataclass
class Journal:
    """All events of the newest epoch, as one client that is subscribed to everything and the history have them."""

    epoch: str = ""
    events: dict[int, Message] = field(default_factory=dict)
    position: int = 0
    """Every event from the first known one up to here is in `events`."""
    first: int = 0

    def restart(self, epoch: str, seq: int) -> None:
        self.epoch, self.events, self.position, self.first = epoch, {}, seq, seq

    def add(self, message: Message) -> None:
        self.events[message["seq"]] = message
        self.position = max(self.position, message["seq"])


@dataclass
class PromiseCheck:
    """A running check. `stopping` may be set from any thread; `broken` has what was found."""

    url: str
    token: str
    clients: int = 30
    seconds: float = 60.0
    seed: int | None = None
    stopping: bool = False
    broken: list[str] = field(default_factory=list)
    connections: int = 0
    messages: int = 0
    cuts: int = 0
    gaps: int = 0
    compared: int = 0
    journal: Journal = field(default_factory=Journal)

    async def run(self) -> None:
        """Check for `seconds`, or until `stopping`. Raises `CannotCheck`."""
        rng = random.Random(self.seed)
        ends = time.monotonic() + self.seconds
        try:
            async with asyncio.TaskGroup() as tasks:
                witness = tasks.create_task(self._witness())
                while not self.journal.epoch:  # noqa: ASYNC110, a witness that cannot connect ends the group
                    await asyncio.sleep(0.05)
                clients = [
                    tasks.create_task(self._client(f"client {number}", random.Random(rng.random())))
                    for number in range(self.clients)
                ]
                while time.monotonic() < ends and not self.stopping and not self.broken:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                self.stopping = True
                await asyncio.gather(*clients)
                witness.cancel()
        except* CannotCheck as failed:
            raise CannotCheck(str(failed.exceptions[0])) from None

    def summary(self) -> str:
        return (
            f"{self.messages} messages on {self.connections} connections of {self.clients} clients, "
            f"{self.cuts} cut, {self.gaps} gaps, {len(self.journal.events)} events of the last epoch, "
            f"{self.compared} pictures compared"
        )

    # -- the witness -------------------------------------------------------------------------------------------

    async def _witness(self) -> None:
        """Fill the journal, without a hole."""
        while True:
            query = {"after": "now"}
            if self.journal.epoch:
                query = {"epoch": self.journal.epoch, "after": str(self.journal.position)}
            connection = await self._connect(query)
            try:
                async for text in connection:
                    await self._witnessed(json.loads(text))
            except ConnectionClosed:
                continue
            finally:
                connection.transport.abort()
                await connection.wait_closed()

    async def _witnessed(self, message: Message) -> None:
        if message["type"] == "welcome":
            data = message["data"]
            if data["epoch"] != self.journal.epoch:
                self.journal.restart(data["epoch"], data["seq"])
            elif not data["recovered"]:
                await self._page_up_to(data["seq"])
        elif message["type"] == "gap":
            await self._page_up_to(message["data"]["to_seq"])
        elif "seq" in message:
            self.journal.add(message)

    async def _page_up_to(self, last: int) -> None:
        while self.journal.position < last:
            query = {"epoch": self.journal.epoch, "after": str(self.journal.position), "limit": "1000"}
            page = await asyncio.to_thread(self.get, f"/api/cluster/history?{urlencode(query)}")
            if page is None or not page["events"]:
                raise CannotCheck(f"the history does not have the events up to {last}")
            for event in page["events"]:
                self.journal.add(event)

    def get(self, path: str) -> Any:
        """The answer to GET; None: there was none."""
        request = Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except (HTTPError, OSError):
            return None

    # -- one client --------------------------------------------------------------------------------------------

    async def _connect(self, query: dict[str, str], *, small: bool = False) -> ClientConnection:
        """A connection; `small`: with a receive buffer that is soon full."""
        address = f"ws{self.url.removeprefix('http')}/ws/cluster?{urlencode(query)}"
        since = time.monotonic()
        while True:
            try:
                options: dict[str, Any] = {"sock": await small_socket(self.url)} if small else {}
                return await connect(
                    address,
                    additional_headers={"Authorization": f"Bearer {self.token}"},
                    compression=None,
                    open_timeout=15,
                    ping_interval=None,
                    max_queue=32,
                    max_size=None,
                    proxy=None,
                    **options,
                )
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as lost:
                if time.monotonic() - since > AWAY_SECONDS:
                    raise CannotCheck(f"cannot connect: {lost}") from lost
                await asyncio.sleep(0.1)

    async def _client(self, name: str, rng: random.Random) -> None:
        """Connections one after the other, each checked when it has ended; the last one settles first."""
        cursor: tuple[str, int] | None = None
        while True:
            wanted = dict(EVERYTHING) if rng.random() < 0.3 else random_filter(rng)
            record = Record(name, wanted, cursor if rng.random() < 0.7 else None)
            query = {"filter": json.dumps(wanted)}
            if record.cursor is not None:
                query |= {"epoch": record.cursor[0], "after": str(record.cursor[1])}
            else:
                query["after"] = "now"
            connection = await self._connect(query, small=rng.random() < 0.5)
            self.connections += 1
            last = self.stopping
            epochs: list[str] = []
            try:
                await self._converse(connection, record, epochs, rng, settle=last)
            finally:
                connection.transport.abort()
                await connection.wait_closed()
            self.messages += len(record.messages)
            self.gaps += sum(message["type"] == "gap" for message in record.messages)
            cursor = await self._check(record, epochs)
            if last:
                return

    async def _converse(
        self,
        connection: ClientConnection,
        record: Record,
        epochs: list[str],
        rng: random.Random,
        *,
        settle: bool,
    ) -> None:
        """Hear and ask until this side cuts the connection, or the daemon does. To settle: until nothing comes
        any more and the client's picture of the metrics is the daemon's; a difference that stays is broken."""
        ends = time.monotonic() + (SETTLE_SECONDS if settle else rng.expovariate(1 / 4.0))
        asks = time.monotonic() + rng.uniform(0.1, 1.0)
        number = 0
        settled: Any = None
        differs: list[str] = []
        with suppress(ConnectionClosed):
            while time.monotonic() < ends and (settle or not self.stopping):
                try:
                    async with asyncio.timeout(0.1):
                        message = json.loads(await connection.recv())
                except TimeoutError:
                    message = None
                if message is not None:
                    if message["type"] == "welcome":
                        epochs.append(message["data"]["epoch"])
                    record.messages.append(message)
                if settle and (message is None or time.monotonic() > asks):
                    before = settled
                    settled = await asyncio.to_thread(self.get, METRICS)
                    if message is None and before is not None and before == settled:
                        # What is still on its way to the client makes a difference that passes.
                        differs = self._differences(record, settled["metrics"])
                        if not differs:
                            return
                    asks = time.monotonic() + 0.5
                elif not settle and time.monotonic() > asks:
                    number += 1
                    await self._ask(connection, record, number, rng)
                    asks = time.monotonic() + rng.uniform(0.1, 1.5)
                    if rng.random() < 0.1:
                        connection.transport.pause_reading()
                        await asyncio.sleep(rng.uniform(0.5, 4.0))
                        connection.transport.resume_reading()
            self.cuts += 1
        self.broken += differs

    async def _ask(
        self, connection: ClientConnection, record: Record, number: int, rng: random.Random
    ) -> None:
        match rng.randrange(4):
            case 0:
                wanted = random_filter(rng)
                record.questions.append((number, wanted))
                await connection.send(json.dumps({"type": "subscribe", "id": number, "data": wanted}))
            case 1:
                record.questions.append((number, {}))
                await connection.send(json.dumps({"type": "unsubscribe", "id": number}))
            case 2:
                record.questions.append((number, None))
                await connection.send(json.dumps({"type": "ping", "id": number}))
            case _:
                record.questions.append((number, None))
                await connection.send(json.dumps({"type": "status", "id": number}))

    async def _check(self, record: Record, epochs: list[str]) -> tuple[str, int] | None:
        """Hold a connection that has ended to the rules; returns where to resume."""
        if len(set(epochs)) != 1:
            return None
        epoch, newest = epochs[0], record.newest()
        since = time.monotonic()
        while self.journal.epoch == epoch and self.journal.position < newest:
            if time.monotonic() - since > AWAY_SECONDS:
                self.broken.append(f"{record.name} was sent {newest}, and the witness never was")
                return None
            await asyncio.sleep(0.05)
        if self.journal.epoch != epoch or (
            record.cursor is not None and record.cursor[1] < self.journal.first
        ):
            return None
        self.broken += violations(record, self.journal.events)
        return epoch, newest

    def _differences(self, record: Record, actual: dict[str, Any]) -> list[str]:
        shown = picture(record.messages)
        asked = record.wanted.get("custom_metrics")
        if shown is None or asked is not True:
            return []
        wanted = content({"type": "custom_metrics", "data": actual}, record.wanted) or {}
        differs = [
            f"{record.name} shows {name} as {shown.get(name)}, and it is {wanted.get(name)}"
            for name in sorted(wanted.keys() | shown.keys())
            if wanted.get(name) != shown.get(name)
        ]
        self.compared += not differs
        return differs


class GaugeLoad(threading.Thread):
    """Sets a few gauges, so that values change too."""

    def __init__(self, load: EventLoad) -> None:
        super().__init__(daemon=True)
        self._load = load
        self.ended = threading.Event()

    def run(self) -> None:
        for number in range(1 << 60):
            if self.ended.wait(0.02):
                return
            name = GAUGES[number % len(GAUGES)]
            if self._load.ask("PUT", METRICS, {"name": name, "value": number}) == 404:
                self._load.ask("POST", METRICS, {"name": name, "type": "gauge"})


def check(promises: PromiseCheck, rate: float) -> None:
    """Run `promises` under a load of `rate` events a second, which ends before the clients settle."""
    address = promises.url.partition("://")[2]
    with writing(address, promises.token, rate=rate, help_characters=2_000) as load:
        gauges = GaugeLoad(load)
        gauges.start()

        def end_load() -> None:
            while not promises.stopping:
                time.sleep(0.05)
            gauges.ended.set()
            load.end()

        ender = threading.Thread(target=end_load, daemon=True)
        ender.start()
        try:
            asyncio.run(promises.run())
        finally:
            promises.stopping = True
            ender.join()
            gauges.join()


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("url", help="http://HOST:PORT")
    options.add_argument("--user", default="admin", help="whose password is in HELIOSD_PASSWORD")
    options.add_argument("--clients", type=int, default=30)
    options.add_argument("--seconds", type=float, default=600.0)
    options.add_argument("--rate", type=float, default=50.0, help="events a second")
    options.add_argument("--seed", type=int)
    given = options.parse_args()
    password = os.environ.get("HELIOSD_PASSWORD")
    if password is None:
        print("HELIOSD_PASSWORD is not set", file=sys.stderr)
        return 2
    try:
        url = given.url.rstrip("/")
        promises = PromiseCheck(
            url, log_in(url, given.user, password), given.clients, given.seconds, given.seed
        )
        check(promises, given.rate)
    except CannotCheck as reason:
        print(reason, file=sys.stderr)
        return 2
    print(promises.summary())
    for broken in promises.broken[:20]:
        print(f"BROKEN: {broken[:400]}", file=sys.stderr)
    if not promises.broken:
        print("every promise held")
    return 1 if promises.broken else 0


if __name__ == "__main__":
    sys.exit(main())
