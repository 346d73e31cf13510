"""How much later than etcd's own members heliosd shows a change: what `make prove-etcd-times` measures.

On an idle machine only. `ETCD_ROUNDS` is the number of leaders that are killed; the other numbers follow from it.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any

import pytest

from tests.support.daemon_process import wait_until
from tests.support.deadlines import SECONDS
from tests.support.etcd_cluster import EtcdAuth, EtcdCluster
from tests.support.etcd_nodes import Listener, Nodes, beside, etcd_config, starting
from tests.support.etcd_times import (
    heard,
    leader_shown,
    looking,
    members_shown,
    next_leader_late,
    p99,
    report,
)
from tests.support.spread_cluster import SpreadCluster, disconnect, heal, network

pytestmark = [pytest.mark.needs("etcd"), pytest.mark.slow]
ROUNDS = int(os.environ.get("ETCD_ROUNDS", "50"))
MAX_IDLE_BYTES = 45 * 2**20
STATUS, LIST = "/v3/maintenance/status", "/v3/cluster/member/list"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with EtcdCluster.start(3) as cluster, beside(tmp_path, cluster) as daemons:
        yield Nodes(cluster, daemons)


@contextmanager
def settled(nodes: Nodes, rng: Random) -> Iterator[tuple[list[Listener], int, str]]:
    """Clients on every node, once all have been at rest for a while; the leader's place and id."""
    nodes.wait_whole()
    sleep(rng.uniform(0.5, 5.0))
    with nodes.listeners() as listeners:
        place = nodes.cluster.leader()
        yield listeners, place, nodes.cluster.member_id(place)


def test_leaders_that_are_killed_and_those_that_hand_over(nodes: Nodes) -> None:
    rng, killed, moved = Random(ROUNDS), [], []
    for number in range(2 * ROUNDS):
        with settled(nodes, rng) as (listeners, place, leader):
            other = int(nodes.cluster.member_id((place + rng.choice((1, 2))) % 3), 16)
            with looking(nodes.cluster, STATUS, leader_shown) as shown:
                wait_until(lambda it=shown: bool(it.first))  # type: ignore[misc]
                if number % 2:
                    nodes.cluster.kill(place)
                    killed.append(next_leader_late(shown, listeners, leader)[1])
                else:
                    path = "/v3/maintenance/transfer-leadership"
                    nodes.cluster.ask(place, path, {"targetID": str(other)})
                    moved.append(next_leader_late(shown, listeners, leader)[1])
            if number % 2:
                nodes.cluster.restart(place)
    print(report("killed", killed), report("handed over", moved), sep="\n")
    assert p99(killed) <= 0.1
    assert p99(moved) <= 0.15


def test_leaders_that_are_cut_off(tmp_path: Path) -> None:
    rng, late = Random(ROUNDS), []
    with network(), SpreadCluster.start(3, options=["--pre-vote"]) as cluster, ExitStack() as stack:
        daemons = []
        for name in ("etcd-1", "etcd-2", "etcd-3"):
            config = etcd_config(tmp_path / name, name, cluster)
            daemons.append(stack.enter_context(starting(tmp_path / name, config)))
        for daemon in daemons:
            daemon.wait_listening()
            daemon.wait_ready()
        nodes = Nodes(cluster, daemons)
        for _ in range(ROUNDS * 2 // 5):
            with (
                settled(nodes, rng) as (listeners, place, leader),
                looking(cluster, STATUS, leader_shown) as shown,
            ):
                wait_until(lambda it=shown: bool(it.first))  # type: ignore[misc]
                disconnect(place)
                late.append(next_leader_late(shown, listeners, leader)[1])
                heal(place)
    print(report("cut off", late))
    assert p99(late) <= 0.1


def test_members_that_are_added_promoted_and_removed(nodes: Nodes) -> None:
    rng, late = Random(ROUNDS), {"added": [], "promoted": [], "removed": []}  # type: ignore[var-annotated]
    cluster = nodes.cluster
    for _ in range(max(1, ROUNDS // 5)):
        with settled(nodes, rng) as (listeners, place, _):
            spare = cluster.spare("etcd-4")
            with looking(cluster, LIST, members_shown) as shown:
                body = {"peerURLs": [spare.peer_url], "isLearner": True}
                added = f"{int(changed(cluster, place, 'add', body)['member']['ID']):x}"
                late["added"].append(behind(listeners, "added", added) - shown.first[f"learner {added}"])
            cluster.join(spare)
            wait_until(lambda: cluster.status(3) is not None, SECONDS)
            sleep(rng.uniform(0.5, 5.0))
            with looking(cluster, LIST, members_shown) as shown:
                changed(cluster, place, "promote", {"ID": str(int(added, 16))})
                late["promoted"].append(behind(listeners, "promoted", added) - shown.first[f"voter {added}"])
                wait_until(lambda it=shown, fact=f"voter {added}": fact in it.first)  # type: ignore[misc]
            sleep(rng.uniform(0.5, 5.0))
            with looking(cluster, LIST, members_shown) as shown:
                wait_until(lambda it=shown, fact=f"voter {added}": fact in it.first)  # type: ignore[misc]
                changed(cluster, place, "remove", {"ID": str(int(added, 16))})
                late["removed"].append(behind(listeners, "removed", added) - shown.gone[f"voter {added}"])
            cluster.kill(3)
            cluster.members.pop()
    print(*(report(*each) for each in late.items()), sep="\n")
    assert max(p99(each) for each in late.values()) <= 0.3


def behind(listeners: list[Listener], kind: str, member: str) -> float:
    return heard(
        listeners, "peer_change", lambda data: (data["event_type"], data["peer_id"]) == (kind, member)
    )


def changed(cluster: EtcdCluster, place: int, what: str, body: dict[str, Any]) -> dict[str, Any]:
    """etcd refuses changes of members for five seconds after a member has started."""
    found: list[dict[str, Any]] = []

    def accepted() -> bool:
        try:
            found.append(cluster.ask(place, f"/v3/cluster/member/{what}", body))
        except OSError:
            return False
        return True

    wait_until(accepted, SECONDS)
    return found[0]


@pytest.mark.parametrize("auth", [None, EtcdAuth()])
def test_an_idle_heliosd_costs_little(tmp_path: Path, auth: EtcdAuth | None) -> None:
    login = ""
    if auth is not None:
        password = tmp_path / "etcd_password"
        password.touch(0o600)
        password.write_text(auth.password)
        login = f'username = "{auth.username}"\npassword_file = "{password}"'
    with (
        EtcdCluster.start(3, auth=auth) as cluster,
        beside(tmp_path, cluster, names=["etcd-1"], etcd=login) as (daemon,),
    ):
        sleep(6.0)
        used, asked, began = _cpu_seconds(daemon.pid), _requests(cluster), monotonic()
        sleep(30.0)
        took = monotonic() - began
        cpu = (_cpu_seconds(daemon.pid) - used) / took
        rate = (_requests(cluster) - asked) / took
        resident = daemon.rss_bytes()
        print(f"{cpu:.2%} of a core, {rate:.1f} requests/s, {resident / 2**20:.1f} MiB")
        assert resident <= MAX_IDLE_BYTES
        assert cpu <= 0.015
        assert rate <= 12


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _requests(cluster: EtcdCluster) -> float:
    """All that the members' gRPC servers have been asked; plain pages are not among it."""
    count = 0.0
    for member in cluster.members:
        with urllib.request.urlopen(f"{member.client_url}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("grpc_server_started_total{"):
                    count += float(line.rpartition(" ")[2])
    return count
