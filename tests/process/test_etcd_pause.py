"""A heliosd that is stopped and goes on, beside three healthy members."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import Listener, beside, listening

pytestmark = pytest.mark.needs("etcd")


def polls(daemon: Daemon) -> list[int]:
    """How often each peer has answered."""
    peers = daemon.ask("GET", "/api/cluster/latency").json()["peers"].values()
    return [peer["probe"]["count"] for peer in peers]


def added(cluster: EtcdCluster, place: int, peer_url: str) -> bool:
    """Whether the cluster accepts a member with this URL."""
    with suppress(OSError):
        cluster.ask(place, "/v3/cluster/member/add", {"peerURLs": [peer_url]})
        return True
    return False


def kinds(listener: Listener) -> list[str]:
    return [each["data"]["event_type"] for _, each in listener.of("peer_change")]


@pytest.mark.parametrize("seconds", [3.0, pytest.param(12.0, marks=pytest.mark.slow)])
def test_a_pause_of_heliosd_is_no_event_of_the_cluster(tmp_path: Path, seconds: float) -> None:
    """12 s: longer than the lease of its presence."""
    with (
        EtcdCluster.start(3) as cluster,
        beside(tmp_path, cluster, names=["etcd-1"]) as (daemon,),
        listening(daemon, daemon.token()) as listener,
    ):
        with daemon.client() as http:
            http.post("/api/cluster/latency/reset")
        wait_until(lambda: min(polls(daemon)) >= 2)
        os.kill(daemon.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(daemon.pid, signal.SIGCONT)
        before = polls(daemon)
        wait_until(lambda: all(now >= was + 4 for now, was in zip(polls(daemon), before, strict=True)))
        changes = [each["data"] for kind in ("state_change", "peer_change") for _, each in listener.of(kind)]
        assert changes == []
        daemon.wait_ready()


@pytest.mark.slow
def test_a_leader_that_restarted_and_was_elected_again_while_heliosd_was_stopped_is_believed(
    tmp_path: Path,
) -> None:
    """Its connection is seen to end after its election is seen. Members that come are listed by it all the same."""
    with (
        EtcdCluster.start(3) as cluster,
        beside(tmp_path, cluster, names=["watcher"]) as (daemon,),
        listening(daemon, daemon.token()) as listener,
    ):
        place = cluster.leader()
        os.kill(daemon.pid, signal.SIGSTOP)
        cluster.restart(place)
        elected = cluster.leader()
        if elected != place:
            target = {"targetID": cluster.ask(place, "/v3/maintenance/status", {})["header"]["member_id"]}
            cluster.ask(elected, "/v3/maintenance/transfer-leadership", target)
        os.kill(daemon.pid, signal.SIGCONT)
        wait_until(lambda: any(each["data"]["leader"] for _, each in listener.of("state_change")))
        spare = cluster.spare("etcd-4")
        # etcd refuses it for five seconds after the start of a member.
        wait_until(lambda: added(cluster, place, spare.peer_url))
        wait_until(lambda: "added" in kinds(listener))
        assert kinds(listener) == ["unhealthy", "healthy", "added"], "its restart, and the new member"
