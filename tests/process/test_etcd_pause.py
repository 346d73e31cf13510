"""A heliosd that is stopped and goes on, beside three healthy members."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import beside, listening

pytestmark = pytest.mark.needs("etcd")


def polls(daemon: Daemon) -> list[int]:
    """How often each peer has answered."""
    with daemon.client() as http:
        peers = http.get("/api/cluster/latency").json()["peers"].values()
    return [peer["probe"]["count"] for peer in peers]


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
