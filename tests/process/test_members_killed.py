"""Members that go and come back by POST and DELETE while the daemon is killed with -9 and started again.

It runs in `make prove-members`; tests/tasks/test_members_that_return.py does the same in one process, much faster.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.support.daemon_process import Daemon, running, wait_until

PEERS = {f"node-{serial}": f"127.0.0.1:{7000 + serial}" for serial in range(2, 6)}
METRICS = "/api/cluster/custom-metrics"
MAY_FAIL = {404, 409, 503, 504}


class KilledMembers:
    """One data directory, of which one daemon after the other is killed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = Random(seed)
        self.writes = self.killed = self.changes = 0
        self._failures: list[BaseException] = []

    def round(self) -> None:
        """Start, see that all is there, change and write until the kill."""
        with running(self.folder) as daemon, daemon.client() as http:
            # `running` has waited for /readyz: a majority of whatever members there are has a leader.
            self.check(http)
            ended = threading.Event()
            tasks = [
                threading.Thread(target=self._repeat, args=(each, daemon, daemon.token(), ended))
                for each in (self._write, self._change)
            ]
            for task in tasks:
                task.start()
            before = self.writes
            wait_until(lambda: self.writes > before or ended.is_set())
            ended.wait(self.rng.uniform(0.0, 1.0))  # the moment of the kill
            daemon.process.kill()
            daemon.process.wait()
            ended.set()
            for task in tasks:
                task.join()
            if self._failures:
                raise self._failures[0]
            self.killed += 1

    def check(self, http: httpx.Client) -> None:
        """Every answered write is there, once; the write under way may be."""
        found = http.get(METRICS).json()["metrics"]
        value = found["hits"]["value"] if "hits" in found else 0
        assert self.writes <= value <= self.writes + 1

    def last(self) -> None:
        with running(self.folder) as daemon, daemon.client() as http:
            self.check(http)
            while not self._write(http):
                pass
            assert http.get(METRICS, params={"name": "hits"}).json()["value"] == self.writes
            assert daemon.stop() == 0

    def _repeat(
        self, task: Callable[[httpx.Client], object], daemon: Daemon, token: str, ended: threading.Event
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(
            base_url=daemon.url, headers=headers, timeout=10, trust_env=False, verify=False
        ) as http:
            while not ended.is_set():
                try:
                    task(http)
                except httpx.HTTPError:
                    return  # killed
                except BaseException as failure:
                    self._failures.append(failure)
                    ended.set()

    def _write(self, http: httpx.Client) -> bool:
        """The next write, or the last one again if it was not answered: by its key it is done once."""
        http.post(METRICS, json={"name": "hits", "type": "counter"}, headers={"Idempotency-Key": "hits"})
        key = {"Idempotency-Key": f"write-{self.writes}"}
        answer = http.put(METRICS, json={"name": "hits"}, headers=key)
        assert answer.status_code in {200, *MAY_FAIL}, answer.text
        self.writes += answer.status_code == 200
        return answer.status_code == 200

    def _change(self, http: httpx.Client) -> None:
        name = self.rng.choice(list(PEERS))
        match self.rng.randrange(5):
            case 0 | 1:
                answer = http.post("/api/cluster/peers", json={"id": name, "address": PEERS[name]})
            case 2 | 3:
                answer = http.request("DELETE", "/api/cluster/peers", params={"id": name})
            case _:
                answer = http.post("/api/cluster/leadership/transfer", json={"target": name})
        assert answer.status_code in {200, 201, *MAY_FAIL}, answer.text
        self.changes += answer.is_success


def kill_members(folder: Path, rounds: int, seed: int) -> None:
    members = KilledMembers(folder, seed)
    for _ in range(rounds):
        members.round()
    members.last()
    print(
        f"seed {seed}: {members.killed} kills, {members.changes} changes of members, {members.writes} writes"
    )


@pytest.mark.slow
def test_members_that_go_and_come_back_lose_nothing_by_kill_9(tmp_path: Path) -> None:
    kill_members(tmp_path, int(os.environ.get("KILLS", "100")), int(os.environ.get("FIRST_SEED", "1")))
