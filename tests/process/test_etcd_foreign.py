"""Endpoints of which one belongs to another cluster of etcd: it is neither believed nor written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import METRICS, beside, etcd_config, starting

pytestmark = pytest.mark.needs("etcd")
SECONDS = 20.0
PREFIX = "/heliosd/"


def warnings(daemon: Daemon) -> list[str]:
    return list(daemon.ask("GET", "/readyz").json().get("warnings", []))


def failed_polls(daemon: Daemon) -> int:
    """Of the one member of our cluster, in a row."""
    (member,) = daemon.ask("GET", "/api/cluster/status").json()["peers"]
    return int(member["latency"]["consecutive_errors"])


def metrics(daemon: Daemon) -> set[str]:
    return set(daemon.ask("GET", METRICS).json()["metrics"])


@pytest.mark.extended
def test_a_removed_member_that_comes_up_as_a_cluster_of_its_own_is_left_out(tmp_path: Path) -> None:
    with EtcdCluster.start(3) as cluster, beside(tmp_path, cluster, names=["watcher"]) as (daemon,):
        with daemon.client() as http:
            assert http.post(METRICS, json={"name": "app_ours", "type": "gauge"}).status_code == 201
        gone = (cluster.leader() + 1) % 3
        one, other = (place for place in range(3) if place != gone)
        status = cluster.status(gone)
        assert status is not None
        wait_until(lambda: removed(cluster, status["header"]["member_id"], one), SECONDS)
        cluster.found_alone(gone)
        url = cluster.members[gone].client_url
        wait_until(lambda: any(url in each for each in warnings(daemon)), SECONDS)
        # The real ones restart: for a moment only the foreign one answers.
        cluster.kill(one)
        cluster.kill(other)
        wait_until(lambda: not daemon.is_ready(), SECONDS)
        cluster.restart(one, wait=False)
        cluster.restart(other, wait=False)
        wait_until(daemon.is_ready, SECONDS)
        assert metrics(daemon) == {"app_ours"}
        assert cluster.count(PREFIX, gone) == 0
        assert cluster.count(PREFIX, one) > 0
        assert sum("belongs to another cluster" in line["event"] for line in daemon.lines) == 1


def removed(cluster: EtcdCluster, member: str, through: int) -> bool:
    """etcd refuses for five seconds after a member has started."""
    try:
        cluster.ask(through, "/v3/cluster/member/remove", {"ID": member})
    except OSError:
        return False
    return True


@pytest.mark.extended
def test_a_foreign_cluster_is_no_refuge_while_our_own_is_silent_and_after_a_restart(tmp_path: Path) -> None:
    with EtcdCluster.start(1) as ours, EtcdCluster.start(1) as foreign:
        urls = [foreign.members[0].client_url, ours.members[0].client_url]
        first = etcd_config(tmp_path / "node", "watcher", ours)
        with starting(tmp_path / "node", first) as daemon:
            daemon.wait_listening()
            daemon.wait_ready()
        both = etcd_config(tmp_path / "node", "watcher", ours, endpoints=urls)
        with starting(tmp_path / "node", both) as daemon:
            daemon.wait_listening()
            daemon.wait_ready()
            wait_until(lambda: len(warnings(daemon)) == 1, SECONDS)
            ours.stop(0)
            wait_until(lambda: not daemon.is_ready(), SECONDS)
            wait_until(lambda: failed_polls(daemon) >= 4, SECONDS)
            assert foreign.count(PREFIX, 0) == 0
            assert not daemon.is_ready()
            ours.cont(0)
            wait_until(daemon.is_ready, SECONDS)
        ours.stop(0)
        with starting(tmp_path / "node", both) as daemon:
            daemon.wait_listening()
            wait_until(lambda: len(warnings(daemon)) == 1, SECONDS)
            ours.cont(0)
            daemon.wait_ready()
        assert foreign.count(PREFIX, 0) == 0


@pytest.mark.extended
def test_at_a_first_start_endpoints_of_two_clusters_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    with EtcdCluster.start(1) as one, EtcdCluster.start(1) as other:
        urls = [cluster.members[0].client_url for cluster in (one, other)]
        config = etcd_config(tmp_path / "node", "watcher", one, endpoints=urls)
        with starting(tmp_path / "node", config) as daemon:
            daemon.wait_listening()

            def reason() -> str:
                return str(daemon.ask("GET", "/readyz").json().get("reason"))

            wait_until(lambda: all(url in reason() for url in urls), SECONDS)
            assert "different clusters" in reason()
        assert one.count(PREFIX, 0) == other.count(PREFIX, 0) == 0


def test_a_cluster_that_replaced_ours_at_every_endpoint_is_taken_on(tmp_path: Path) -> None:
    with EtcdCluster.start(1, names=["etcd-1"]) as cluster:
        config = etcd_config(tmp_path / "node", "watcher", cluster)
        with starting(tmp_path / "node", config) as daemon:
            daemon.wait_listening()
            daemon.wait_ready()
            with daemon.client() as http:
                assert http.post(METRICS, json={"name": "app_gone", "type": "gauge"}).status_code == 201
            cluster.members[0].name = "etcd-other"
            cluster.token_of_cluster = "another"
            cluster.found_alone(0)
            wait_until(lambda: metrics(daemon) == set() and daemon.is_ready(), SECONDS)
