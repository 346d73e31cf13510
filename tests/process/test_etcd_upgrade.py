"""A rolling upgrade of etcd from 3.4 to 3.7, one member after the other, under three heliosd and their clients."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon_process import wait_until
from tests.support.etcd_cluster import EtcdAuth, EtcdCluster
from tests.support.etcd_nodes import METRICS, Nodes, beside
from tests.support.etcd_versions import further_etcds

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd")]
BRANCHES = ("3.4", "3.5", "3.6", "3.7")
QUIET_SECONDS = 2.0
"""Between two members, as long as an operator looks at least."""


def newest_of_each_branch() -> list[str]:
    """The program of each branch; skips where one is missing."""
    found = {version: str(place / "etcd") for version, place in further_etcds().items()}
    program = shutil.which("etcd") or ""
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    installed = re.search(r"etcd Version: (3\.\d+\.\d+)", printed)
    if installed:
        found.setdefault(installed[1], program)
    newest = []
    for branch in BRANCHES:
        versions = [each for each in found if each.startswith(f"{branch}.")]
        if not versions:
            pytest.skip(f"there is no etcd {branch} here: scripts/etcd {branch}")
        newest.append(found[max(versions, key=lambda each: int(each.rpartition(".")[2]))])
    return newest


@dataclass
class Truth:
    """What etcd itself shows, asked apart from heliosd: each leader that a quorum names, with its term."""

    cluster: EtcdCluster
    leaders: list[tuple[int, str]] = field(default_factory=list)
    away: list[tuple[str, float, float]] = field(default_factory=list)
    """Each member that was stopped, from when until when, in Unix seconds."""

    def look(self) -> None:
        statuses = [self.cluster.status(place) for place in range(3)]
        named = [(int(s["raftTerm"]), f"{int(s.get('leader', 0)):x}") for s in statuses if s is not None]
        for each in set(named):
            # A status may name the next leader, and still the term before: etcd moves its term when it applies the
            # first entry of it. Who was named first in a term is its leader.
            if each[1] != "0" and named.count(each) >= 2 and each[0] not in dict(self.leaders):
                self.leaders.append(each)

    def replace(self, place: int, program: str) -> None:
        """Stop the member as systemd does, and start it with another program."""
        member, status = self.cluster.members[place], self.cluster.status(place)
        assert member.process is not None
        assert status is not None
        stopped = time.time()
        member.process.send_signal(signal.SIGTERM)
        member.process.wait(30)
        member.arguments[0] = program
        self.cluster.restart(place)
        self.away.append((f"{int(status['header']['member_id']):x}", stopped, time.time()))

    def check(self, log: list[dict[str, Any]]) -> None:
        """Every leader that etcd showed is in the log, once and in order, and nothing that was not so."""
        changes = [event["data"] for event in log if event["type"] == "state_change"]
        elected = [(each["term"], each["leader"]) for each in changes if each["leader"]]
        print(f"{len(self.leaders)} leaders, {len(log)} events, {len(self.away)} members replaced")
        assert [term for term, _ in elected] == sorted({term for term, _ in elected}), (
            "each term once, in order"
        )
        assert set(elected) <= set(self.leaders), "only who led"
        unseen = [each["terms_unseen"] for each in changes if "terms_unseen" in each]
        for term, leader in self.leaders[1:]:
            assert (term, leader) in elected or any(low <= term <= high for low, high in unseen)
        for event in log:
            if event["type"] != "peer_change":
                continue
            kind, peer = event["data"]["event_type"], event["data"]["peer_id"]
            assert kind in {"healthy", "unhealthy"}, event
            at = datetime.fromisoformat(event["timestamp"]).timestamp()
            assert any(each == peer and start <= at <= end + 5.0 for each, start, end in self.away), event

    @contextmanager
    def looking(self) -> Iterator[None]:
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(0.02):
                self.look()

        task = threading.Thread(target=run)
        task.start()
        try:
            yield
        finally:
            stop.set()
            task.join()


@contextmanager
def registering(nodes: Nodes) -> Iterator[list[str]]:
    """Metrics are registered through one heliosd after the other; those that were answered with 201."""
    stop, answered = threading.Event(), list[str]()
    headers = {"Authorization": f"Bearer {nodes.daemons[0].token()}"}

    def run() -> None:
        number = 0
        with httpx.Client(headers=headers, timeout=10.0, verify=False) as http:
            while not stop.wait(0.2):
                number += 1
                url, name = nodes.daemons[number % 3].url + METRICS, f"app_{number}"
                with suppress(httpx.HTTPError):
                    if http.post(url, json={"name": name, "type": "gauge"}).status_code == 201:
                        answered.append(name)

    task = threading.Thread(target=run)
    task.start()
    try:
        yield answered
    finally:
        stop.set()
        task.join()


@pytest.mark.parametrize("auth", [None, EtcdAuth()], ids=["open", "auth"])
def test_clients_receive_one_true_log_while_etcd_is_upgraded_member_by_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: EtcdAuth | None
) -> None:
    first, *later = newest_of_each_branch()
    section = ""
    if auth is not None:
        (tmp_path / "password").touch(0o600)
        (tmp_path / "password").write_text(auth.password)
        section = f'username = "{auth.username}"\npassword_file = "{tmp_path / "password"}"'
    monkeypatch.setenv("PATH", f"{Path(first).parent}:/usr/bin:/bin")
    with EtcdCluster.start(3, auth=auth) as cluster, beside(tmp_path, cluster, etcd=section) as daemons:
        nodes, truth = Nodes(cluster, daemons), Truth(cluster)
        nodes.wait_whole()
        truth.look()
        with nodes.listeners() as listeners:
            with registering(nodes) as answered, truth.looking():
                for branch, program in zip(BRANCHES[1:], later, strict=True):
                    for place in range(3):
                        truth.replace(place, program)
                        nodes.wait_whole()
                        time.sleep(QUIET_SECONDS)  # what is late or false has to show
                    wait_until(lambda it=branch: cluster_version(cluster) == it)  # type: ignore[misc]
                wait_until(lambda: len(answered) > 20)
            log = nodes.compared(listeners)
            assert not any(listener.of("gap") or listener.closed for listener in listeners)
        truth.check(log)
        registered = [name for event in log if event["type"] == "custom_metrics" for name in event["data"]]
        assert set(answered) <= set(registered), "a registration was answered and never sent"
        assert len(registered) == len(set(registered))
        for daemon in daemons:
            assert daemon.stop() == 0


def cluster_version(cluster: EtcdCluster) -> str:
    found = httpx.get(f"{cluster.members[0].client_url}/version", verify=False).json()["etcdcluster"]
    return str(found).rpartition(".")[0]
