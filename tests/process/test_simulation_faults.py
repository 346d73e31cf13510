"""Faults of the simulated cluster by the API, seen from outside by what docs/http.md and docs/protocol.md promise.

The short form runs in `make test`, the long one (500 faults) in `make prove-faults`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.daemon_process import Daemon, running, wait_until
from tests.support.deadlines import SECONDS, at_most

PATH = "/api/cluster/simulation"
NODES = [f"node-{serial}" for serial in range(1, 6)]
PEERS = ", ".join(
    f'{{ id = "{name}", address = "127.0.0.1:700{serial}" }}' for serial, name in enumerate(NODES[1:], 1)
)
ELECTION_SECONDS = 0.15
HEAL: dict[str, Any] = {
    "partitions": [],
    "crashed": [],
    "paused": [],
    "loss": 0,
    "latency_ms": 1,
    "disk_latency_ms": {},
    "clock_rate": {},
    "clock_offset_ms": {},
}


@dataclass
class Watching:
    """All messages that a WebSocket client gets, with the time of each."""

    messages: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def events(self) -> list[dict[str, Any]]:
        return [message for _, message in self.messages if "seq" in message]

    def first(self, wanted: Callable[[dict[str, Any]], bool], since: float) -> tuple[float, dict[str, Any]]:
        """The first event since then that fits, waiting for it if need be."""
        found: list[tuple[float, dict[str, Any]]] = []

        def there() -> bool:
            found[:] = [
                (at, each)
                for at, each in list(self.messages)
                if at >= since and "seq" in each and wanted(each)
            ]
            return bool(found)

        wait_until(there)
        return found[0]


@contextmanager
def watching(daemon: Daemon, token: str) -> Iterator[Watching]:
    seen = Watching()
    with daemon.connect(token) as socket:

        def read() -> None:
            with suppress(ConnectionClosed):
                for text in socket:
                    seen.messages.append((time.monotonic(), json.loads(text)))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            wait_until(lambda: bool(seen.messages))
            yield seen
        finally:
            socket.close()
            reader.join(SECONDS)


def nodes(http: httpx.Client) -> dict[str, dict[str, Any]]:
    answer = http.get(PATH)
    assert answer.status_code == 200, answer.text
    return {node["id"]: node for node in answer.json()["nodes"]}


def put(http: httpx.Client, **change: Any) -> None:
    answer = http.put(PATH, json=change)
    assert answer.status_code == 200, answer.text


def settled(http: httpx.Client) -> str:
    """The one leader of all, once all logs are equal."""
    leaders: set[str] = set()

    def agreed() -> bool:
        found = list(nodes(http).values())
        leaders.clear()
        leaders.update(node["leader"] for node in found)
        ends = {(node["term"], node["commit_index"], node["last_index"]) for node in found}
        one_log = len(ends) == 1 and found[0]["commit_index"] == found[0]["last_index"]
        leading = [node["id"] for node in found if node["state"] == "Leader"]
        return all(node["alive"] for node in found) and one_log and leaders == set(leading)

    wait_until(agreed)
    (leader,) = leaders
    return leader


@pytest.mark.extended
def test_an_isolated_leader_of_five_is_replaced_and_a_client_is_sent_all_of_it_in_order(
    tmp_path: Path,
) -> None:
    with running(tmp_path, simulated=f"peers = [{PEERS}]") as daemon, daemon.client() as http:
        http.post("/api/cluster/leadership/transfer", json={"target": "node-3"})
        assert settled(http) == "node-3"
        with watching(daemon, daemon.token()) as seen:
            began = time.monotonic()
            put(http, partitions=[["node-3"]])
            published, change = seen.first(lambda each: each["type"] == "state_change", began)
            assert published - began <= at_most(3 * ELECTION_SECONDS)
            assert change["data"]["cause"] == "unreachable"
            assert change["data"]["evidence"]["members_reached"] == 1
            before = nodes(http)["node-3"]
            wait_until(lambda: bool({node["leader"] for node in nodes(http).values()} - {"", "node-3"}))
            answer = http.post("/api/cluster/metrics", json={"name": "jobs", "type": "gauge"})
            assert answer.status_code == 201, "the majority goes on"
            cut_off = nodes(http)["node-3"]
            assert cut_off["commit_index"] == before["commit_index"], "the minority commits nothing"
            seen.first(
                lambda each: each["type"] == "peer_change" and each["data"]["event_type"] == "unhealthy",
                began,
            )
            healed = time.monotonic()
            put(http, **HEAL)
            leader = settled(http)
            seen.first(
                lambda each: each["type"] == "peer_change" and each["data"]["event_type"] == "healthy", healed
            )
            events = seen.events()
    assert leader != "node-3"
    seqs = [event["seq"] for event in events]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    leaders = [event["data"]["leader"] for event in events if event["type"] == "state_change"]
    assert leaders[-1] == leader
    unhealthy, healthy = (event["data"] for event in events if event["type"] == "peer_change")
    assert (unhealthy["peer_id"], unhealthy["cause"]) == ("node-3", "unreachable")
    assert (healthy["event_type"], healthy["peer_id"]) == ("healthy", "node-3")


class FaultDriver:
    """Random faults, while a counter is counted up and every member is looked at."""

    def __init__(self, http: httpx.Client, seed: int) -> None:
        self.http = http
        self.rng = Random(seed)
        self.writes = self.repeated = self.looks = 0
        self._leaders: dict[int, str] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._crashes: dict[str, int] = {}
        self._stop = threading.Event()
        self._failures: list[BaseException] = []

    def run(self, faults: int) -> None:
        assert self.http.post("/api/cluster/metrics", json={"name": "hits", "type": "counter"}).is_success
        tasks = [threading.Thread(target=self._guarded, args=(each,)) for each in (self._write, self._look)]
        for task in tasks:
            task.start()
        try:
            for _ in range(faults):
                change = self._fault()
                self._count_crashes(change)
                put(self.http, **change)
                self._count_crashes(change)
                time.sleep(self.rng.choice([0.0, 0.05, 0.2, 0.4]))  # how long a fault lasts is part of it
            put(self.http, **HEAL)
            settled(self.http)
        finally:
            self._stop.set()
            for task in tasks:
                task.join(SECONDS)
        if self._failures:
            raise self._failures[0]
        settled(self.http)
        self._write()
        settled(self.http)

    def _count_crashes(self, change: dict[str, Any]) -> None:
        """Before and after, so that two looks with the same count have no crash between them."""
        for name in change.get("crashed", ()):
            self._crashes[name] = self._crashes.get(name, 0) + 1

    def _fault(self) -> dict[str, Any]:
        rng = self.rng
        some = rng.sample(NODES, rng.randrange(1, 5))
        numbers = dict.fromkeys(some[:2])
        match rng.randrange(11):
            case 0 | 1:
                return {"partitions": [some]}
            case 2:
                cut = rng.randrange(1, 5)
                mixed = rng.sample(NODES, 5)
                return {"partitions": [mixed[:cut], mixed[cut:]]}
            case 3 | 4:
                return {"crashed": some, "paused": []}
            case 5:
                return {"paused": some[:2], "crashed": []}
            case 6:
                return {"loss": rng.choice([0, 0.1, 0.5, 1])}
            case 7:
                return {"latency_ms": rng.choice([0, 1, 20, 200])}
            case 8:
                return {"disk_latency_ms": {name: rng.choice([5, 100, 500]) for name in numbers}}
            case 9:
                return {
                    "clock_rate": {name: rng.choice([0.3, 1.2, 4]) for name in numbers},
                    "clock_offset_ms": {name: rng.choice([0, 50, 5000]) for name in numbers},
                }
            case _:
                return HEAL

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                task()
        except BaseException as failure:
            self._failures.append(failure)

    def _write(self) -> None:
        """One attempt; the same write is repeated with its key until it is answered."""
        headers = {"Idempotency-Key": f"write-{self.writes}"}
        answer = self.http.put("/api/cluster/metrics", json={"name": "hits"}, headers=headers)
        if answer.status_code == 200:
            self.writes += 1
        else:
            assert answer.status_code in {503, 504}, answer.text
            self.repeated += 1

    def _look(self) -> None:
        crashes = dict(self._crashes)
        found = nodes(self.http)
        self.looks += 1
        for name, node in found.items():
            if node["state"] == "Leader":
                assert self._leaders.setdefault(node["term"], name) == name, "one leader a term"
            if (before := self._seen.get(name)) is not None:
                assert node["term"] >= before["term"], "a term goes back"
                if before["alive"] and crashes.get(name) == before["crashes"]:
                    assert node["commit_index"] >= before["commit_index"], "a commit goes back"
            self._seen[name] = node | {"crashes": crashes.get(name)}
        time.sleep(0.01)  # so that looking does not take the machine


def drive(folder: Path, faults: int, seed: int) -> None:
    with running(folder, simulated=f"peers = [{PEERS}]") as daemon, daemon.client() as http:
        with watching(daemon, daemon.token()) as seen:
            driver = FaultDriver(http, seed)
            driver.run(faults)
            value = http.get("/api/cluster/metrics", params={"name": "hits"}).json()["value"]
            assert value == driver.writes, "every answered write is there, once"
            last = http.get("/api/cluster/history", params={"limit": 1}).json()["seq"]
            wait_until(lambda: bool(seen.events()) and seen.events()[-1]["seq"] >= last)
            events = seen.events()
        assert daemon.stop() == 0
    seqs = [event["seq"] for event in events]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    leaders: dict[int, str] = {}
    term = 0
    changes = [event["data"] for event in events if event["type"] == "state_change"]
    for data in changes:
        assert data["term"] >= term, "a term goes back"
        term = data["term"]
        if data["leader"]:
            assert leaders.setdefault(term, data["leader"]) == data["leader"], "one leader a term"
    print(
        f"seed {seed}: {faults} faults, {driver.writes} writes answered, {driver.repeated} repeated, "
        f"{driver.looks} looks at all members, {len(events)} events, {len(leaders)} leaders"
    )


def test_random_faults_break_no_promise(tmp_path: Path) -> None:
    drive(tmp_path, faults=15, seed=1)


@pytest.mark.slow
def test_500_random_faults_break_no_promise(tmp_path: Path) -> None:
    drive(tmp_path, faults=500, seed=int(os.environ.get("FIRST_SEED", "1")))
