"""Clients that hop between three heliosd on one etcd, while heliosd and leaders are killed and metrics written: no
hole, no double, and every write that was answered is seen."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.deadlines import SECONDS
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import METRICS, etcd_config, starting
from tests.support.ports import free_port
from tests.support.running_check import RunningCheck
from tests.support.sequence_checker import Check, Plan

NAMES = ("etcd-1", "etcd-2", "etcd-3")

pytestmark = pytest.mark.needs("etcd")


@dataclass
class Written:
    """What was answered: names that were registered, and the last value of each gauge of a writer."""

    registered: set[str] = field(default_factory=set)
    values: dict[str, float] = field(default_factory=dict)
    answered: int = 0
    refused: int = 0


def write(urls: list[str], token: str, written: Written, number: int, stop: threading.Event) -> None:
    """Register and set metrics through any of the heliosd that answers."""
    rng = random.Random(number)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(headers=headers, timeout=6.0, verify=False) as http:
        for turn in range(1_000_000):
            if stop.is_set():
                return
            name, url = f"app_{number}_{turn // 5}", rng.choice(urls) + METRICS
            with suppress(httpx.HTTPError):
                if turn % 5 == 0:
                    answer = http.post(url, json={"name": name, "type": "gauge"})
                    if answer.status_code == 201:
                        written.registered.add(name)
                elif name in written.registered:
                    answer = http.put(url, json={"name": name, "value": turn})
                    if answer.is_success:
                        written.values[name] = turn
                else:
                    continue
                written.answered += answer.is_success
                written.refused += answer.status_code in {503, 504}
            stop.wait(rng.uniform(0.0, 0.15))


class Troublemaker:
    """Kills a heliosd every few seconds and starts it again, and now and then the leader of etcd."""

    def __init__(self, folder: Path, cluster: EtcdCluster, ports: list[int], stack: ExitStack) -> None:
        self.kills = self.leader_kills = 0
        self._cluster = cluster
        self._stack = stack
        self._folder = folder
        self._configs = [
            etcd_config(folder / name, name, cluster, listen=f"127.0.0.1:{port}")
            for name, port in zip(NAMES, ports, strict=True)
        ]
        self.daemons = [self._start(place) for place in range(3)]
        for daemon in self.daemons:
            daemon.wait_listening()
            daemon.wait_ready()

    def _start(self, place: int) -> Daemon:
        return self._stack.enter_context(starting(self._folder / NAMES[place], self._configs[place]))

    def run(self, stop: threading.Event, pause: float) -> None:
        rng = random.Random(5)
        leader_due = time.monotonic() + 2 * pause
        while not stop.wait(rng.uniform(0.5, 1.5) * pause):
            place = rng.randrange(3)
            self.daemons[place].process.send_signal(signal.SIGKILL)
            self.daemons[place].process.wait(10)
            self.kills += 1
            if time.monotonic() >= leader_due:
                member = self._cluster.leader()
                self._cluster.kill(member)
                self.leader_kills += 1
                stop.wait(rng.uniform(0.0, 2.0))
                self._cluster.restart(member)
                leader_due = time.monotonic() + 3 * pause
            self.daemons[place] = self._start(place)
            self.daemons[place].wait_listening()


@pytest.fixture
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster.start(3) as started:
        yield started


def hop(folder: Path, cluster: EtcdCluster, seconds: float, pause: float) -> None:
    stop, written = threading.Event(), [Written(), Written()]
    ports = [free_port() for _ in NAMES]
    with ExitStack() as stack:
        trouble = Troublemaker(folder, cluster, ports, stack)
        urls = [daemon.url for daemon in trouble.daemons]
        token = trouble.daemons[0].token()
        tasks = [
            threading.Thread(target=write, args=(urls, token, each, number, stop))
            for number, each in enumerate(written)
        ]
        tasks.append(threading.Thread(target=trouble.run, args=(stop, pause)))
        check = Check(urls[0], token, Plan(clients=4, seconds=inf, pause=1.0), others=tuple(urls[1:]))
        running_check = RunningCheck(check)
        until = time.monotonic() + seconds
        for task in tasks:
            task.start()
        try:
            wait_until(
                lambda: (
                    running_check.ended
                    or (
                        time.monotonic() >= until
                        and trouble.kills >= 2
                        and min(each.answered for each in written) > seconds
                    )
                ),
                seconds + 2 * SECONDS,
            )
        finally:
            stop.set()
            for task in tasks:
                task.join()
        running_check.finish()
        print(f"{trouble.kills} heliosd and {trouble.leader_kills} leaders killed;", written)
        assert check.seen.gaps == 0
        assert check.seen.refusals.total() == 0, "a client got a gap"
        registered = set[str]().union(*(each.registered for each in written))
        sent = {
            name
            for event in check.ledger.events(check.followers[0].epoch).values()
            if event["type"] == "custom_metrics"
            for name in event["data"]
        }
        assert registered <= sent, "a registration was answered and never sent"
        for daemon in trouble.daemons:
            daemon.wait_ready()
            with daemon.client() as http:
                found = http.get(METRICS).json()["metrics"]
            for each in written:
                assert each.registered <= found.keys()
                # One more may have been on its way: newer is right, older is lost.
                assert all(found[name]["value"] >= value for name, value in each.values.items())


def test_a_client_that_hops_between_nodes_receives_everything_once(
    tmp_path: Path, cluster: EtcdCluster
) -> None:
    hop(tmp_path, cluster, seconds=12.0, pause=2.0)


@pytest.mark.slow
def test_a_client_that_hops_for_five_minutes_receives_everything_once(
    tmp_path: Path, cluster: EtcdCluster
) -> None:
    hop(tmp_path, cluster, seconds=300.0, pause=4.0)
