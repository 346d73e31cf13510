"""Members of a real etcd that come, go and are named alike, as heliosd follows them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import beside

pytestmark = pytest.mark.needs("etcd")
SECONDS = 20.0


def leader_of(daemon: Daemon) -> str:
    with daemon.client() as http:
        return str(http.get("/api/cluster/status").json()["leader"]["id"])


def is_ready(daemon: Daemon) -> bool:
    with daemon.client() as http:
        return http.get("/readyz").status_code == 200


@pytest.mark.parametrize("paused", [False, True])
def test_a_member_that_starts_long_after_it_was_added_ends_the_time_without_a_leader(
    tmp_path: Path, paused: bool
) -> None:
    """`paused`: heliosd sees nothing of the addition until the new member leads or follows."""
    with EtcdCluster.start(1) as cluster, beside(tmp_path, cluster, names=["etcd-1"]) as (daemon,):
        pid = daemon.process.pid
        if paused:
            os.kill(pid, signal.SIGSTOP)
        spare = cluster.spare("m1")
        cluster.ask(0, "/v3/cluster/member/add", {"peerURLs": [spare.peer_url]})
        cluster.wait_for(lambda: (cluster.status(0) or {}).get("leader", "0") == "0", "etcd has no leader")
        if not paused:
            wait_until(lambda: leader_of(daemon) == "", SECONDS)
        cluster.join(spare)
        cluster.leader()
        if paused:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: leader_of(daemon) != "" and is_ready(daemon), SECONDS)
