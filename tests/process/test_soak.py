"""One daemon for a long time, with clients that come and go: `make soak` prints where its memory is heading.

SOAK_SECONDS (3,600) is the length, of which the first fifth is warm-up.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median

import httpx
import pytest

from tests.support.daemon_process import Daemon, receive, running, wait_until
from tests.support.deadlines import SECONDS
from tests.support.event_load import writing
from tests.support.ports import free_port
from tests.support.running_check import RunningCheck
from tests.support.sequence_checker import Check, Plan

HOUR = 3600.0
WARM_UP_SHARE = 0.2
MOST_MIB_AN_HOUR = 1.0
SAMPLE_SECONDS = 1.0
HISTORY = "[history]\nmax_events = 500"
SNAPSHOTS = "snapshot_threshold = 50"
"""With these the history, the members' logs and the 1,000 events of snapshots that are kept are full before the
warm-up of an hour ends: until then they grow as they should."""
ON_DEMAND = 5
"""So many descriptors and tasks at most come with the first client and stay."""


@dataclass
class Sample:
    at: float
    rss_mib: float
    descriptors: int
    tasks: int


def sample(daemon: Daemon, http: httpx.Client, at: float) -> Sample:
    answer = http.get("/metrics").raise_for_status()
    tasks = re.search(r"^heliosd_tasks (\S+)", answer.text, re.MULTILINE)
    assert tasks is not None, answer.text
    return Sample(at, daemon.rss_bytes() / 2**20, daemon.descriptors(), int(float(tasks[1])))


def slope(samples: list[Sample]) -> float:
    """MiB an hour, by least squares."""
    middle = sum(sample.at for sample in samples) / len(samples)
    spread = sum((sample.at - middle) ** 2 for sample in samples)
    return HOUR * sum((sample.at - middle) * sample.rss_mib for sample in samples) / spread


@contextmanager
def visitors(daemon: Daemon, token: str) -> Iterator[None]:
    """While the block lasts: WebSockets and event streams for a moment, logins, REST, metrics made and deleted."""
    over = threading.Event()
    broken: list[Exception] = []
    bearer = {"Authorization": f"Bearer {token}"}

    def visit() -> None:
        number = 0
        try:
            with httpx.Client(base_url=daemon.url, headers=bearer, timeout=SECONDS) as http:
                while not over.wait(0.05):
                    number += 1
                    with daemon.connect(token) as socket:
                        receive(socket, "status")
                    with http.stream("GET", "/api/cluster/events") as stream:
                        next(stream.iter_lines())
                    name = f"visited_{number % 50}"
                    http.post("/api/cluster/custom-metrics", json={"name": name, "type": "gauge"})
                    http.get("/api/cluster/status").raise_for_status()
                    http.get("/metrics").raise_for_status()
                    http.delete("/api/cluster/custom-metrics", params={"name": name})
                    if number % 20 == 0:
                        daemon.token("viewer")
        except Exception as error:  # raised where the block ends
            broken.append(error)

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * SECONDS)
    if broken:
        raise broken[0]


def at_rest(now: Sample, before: Sample) -> bool:
    """As before all clients came."""
    return now.descriptors <= before.descriptors + ON_DEMAND and now.tasks <= before.tasks + ON_DEMAND


@pytest.mark.slow
def test_memory_and_descriptors_stay_level_under_churn(tmp_path: Path) -> None:
    seconds = float(os.environ.get("SOAK_SECONDS", HOUR))
    samples: list[Sample] = []
    with (
        running(
            tmp_path,
            listen=f"127.0.0.1:{free_port()}",
            websocket="send_buffer = 64",
            simulated=SNAPSHOTS,
            cluster=HISTORY,
        ) as daemon,
        daemon.client("viewer") as http,
    ):
        before = sample(daemon, http, 0.0)
        with writing(daemon.address, daemon.token(), rate=50) as load:
            check = Check(daemon.url, daemon.token(), Plan(clients=40, seconds=inf, slow=4, pause=5.0))
            running_check = RunningCheck(check)
            with visitors(daemon, daemon.token()):
                began = time.monotonic()
                while (at := time.monotonic() - began) < seconds:
                    running_check.raise_if_ended()
                    samples.append(sample(daemon, http, at))
                    time.sleep(SAMPLE_SECONDS)
            load.end()
            running_check.finish()
        wait_until(lambda: at_rest(sample(daemon, http, seconds), before), 2 * SECONDS)
        assert daemon.stop() == 0
    warm = [sample for sample in samples if sample.at > WARM_UP_SHARE * seconds]
    halves = (warm[: len(warm) // 2], warm[len(warm) // 2 :])
    # Medians: how many connections are open at one moment is chance, and on a busy machine they end late.
    descriptors = [median(sample.descriptors for sample in half) for half in halves]
    tasks = [median(sample.tasks for sample in half) for half in halves]
    print(
        json.dumps(
            {
                "seconds": round(seconds),
                "rss MiB after warm-up, at the end": [round(warm[0].rss_mib, 1), round(warm[-1].rss_mib, 1)],
                "slope MiB/h": round(slope(warm), 2),
                "descriptors before, and the median of either half": [before.descriptors, *descriptors],
                "tasks before, and the median of either half": [before.tasks, *tasks],
                "most descriptors": max(sample.descriptors for sample in warm),
                "most tasks": max(sample.tasks for sample in warm),
                "deliveries": check.seen.deliveries,
                "cuts": check.cuts,
                "load of the last 15 minutes": round(os.getloadavg()[2], 1),
            }
        )
    )
    assert descriptors[1] <= descriptors[0] + 2
    assert tasks[1] <= tasks[0] + 2
    if seconds >= HOUR:  # a shorter run says little about an hour
        assert slope(warm) <= MOST_MIB_AN_HOUR
