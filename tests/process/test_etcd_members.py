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


def test_a_name_that_two_members_bear_names_neither(tmp_path: Path) -> None:
    with (
        EtcdCluster.start(3) as cluster,
        beside(tmp_path, cluster, names=["etcd-1", "etcd-2"]) as (daemon, namesake),
        daemon.client() as http,
    ):
        spare = cluster.spare("etcd-2")
        wait_until(lambda: added(cluster, spare.peer_url), SECONDS)
        cluster.join(spare)
        wait_until(lambda: names(daemon).count("etcd-2") == 2, SECONDS)
        ids = sorted(each["id"] for each in peers(daemon) if each["name"] == "etcd-2")
        text = f"2 members are called etcd-2: {', '.join(ids)}"
        answer = http.request("DELETE", "/api/cluster/peers", params={"id": "etcd-2"})
        assert (answer.status_code, answer.json()) == (409, {"error": text, "field": "id"})
        answer = http.post("/api/cluster/leadership/transfer", json={"target": "etcd-2"})
        assert (answer.status_code, answer.json()) == (409, {"error": text, "field": "target"})
        assert sorted(each["id"] for each in peers(daemon) if each["name"] == "etcd-2") == ids
        # The heliosd of that name shows itself as an observer, and says why once.
        wait_until(lambda: own_state(namesake) == "Observer", SECONDS)
        assert sum("members are called etcd-2" in line["event"] for line in namesake.lines) == 1


def own_state(daemon: Daemon) -> str:
    with daemon.client() as http:
        return str(http.get("/api/cluster/status").json()["node"]["state"])


def added(cluster: EtcdCluster, peer_url: str) -> bool:
    """Add a learner; etcd refuses for five seconds after a member has started."""
    try:
        cluster.ask(0, "/v3/cluster/member/add", {"peerURLs": [peer_url], "isLearner": True})
    except OSError:
        return False
    return True


def peers(daemon: Daemon) -> list[dict[str, str]]:
    with daemon.client() as http:
        return list(http.get("/api/cluster/status").json()["peers"])


def names(daemon: Daemon) -> list[str]:
    return [each["name"] for each in peers(daemon)]
