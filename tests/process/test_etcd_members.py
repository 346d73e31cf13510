"""Members of a real etcd that come, go and are named alike, as heliosd follows them."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import METRICS, beside, listening

pytestmark = pytest.mark.needs("etcd")
SECONDS = 20.0


def leader_of(daemon: Daemon) -> str:
    return str(daemon.ask("GET", "/api/cluster/status").json()["leader"]["id"])


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
        wait_until(lambda: leader_of(daemon) != "" and daemon.is_ready(), SECONDS)


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
        # The heliosd of that name is an observer, and logs the reason once.
        wait_until(lambda: own_state(namesake) == "Observer", SECONDS)
        assert sum("members are called etcd-2" in line["event"] for line in namesake.lines) == 1


@pytest.mark.parametrize("leads", [False, True])
def test_a_member_that_is_removed_through_heliosd_ends_well_and_is_only_reported_as_removed(
    tmp_path: Path, leads: bool
) -> None:
    with (
        EtcdCluster.start(3) as cluster,
        beside(tmp_path, cluster) as daemons,
        daemons[0].client() as http,
    ):
        place = cluster.leader() if leads else (cluster.leader() + 1) % 3
        asked = next(daemon for number, daemon in enumerate(daemons) if number != place)
        token = asked.token()
        with ExitStack() as stack:
            listeners = [stack.enter_context(listening(daemon, token)) for daemon in daemons]
            wait_until(lambda: removed(asked, f"etcd-{place + 1}"), SECONDS)
            member = cluster.members[place].process
            assert member is not None
            assert member.wait(SECONDS) == 0, cluster.members[place].log[-2000:]
            # A metric that is registered now is in the stream behind all that the removal has brought.
            wait_until(
                lambda: http.post(METRICS, json={"name": "app_fence", "type": "gauge"}).is_success, SECONDS
            )
            for listener in listeners:
                wait_until(lambda it=listener: bool(it.of("custom_metrics")), SECONDS)  # type: ignore[misc]
                changes = [each["data"]["event_type"] for _, each in listener.of("peer_change")]
                assert changes == ["removed"]


def removed(daemon: Daemon, name: str) -> bool:
    """etcd refuses for five seconds after a member has started."""
    answer = daemon.ask("DELETE", "/api/cluster/peers", params={"id": name})
    assert answer.status_code == 200 or "5 s" in answer.text, answer.text
    return answer.status_code == 200


def own_state(daemon: Daemon) -> str:
    return str(daemon.ask("GET", "/api/cluster/status").json()["node"]["state"])


def added(cluster: EtcdCluster, peer_url: str) -> bool:
    """Add a learner; etcd refuses for five seconds after a member has started."""
    try:
        cluster.ask(0, "/v3/cluster/member/add", {"peerURLs": [peer_url], "isLearner": True})
    except OSError:
        return False
    return True


def peers(daemon: Daemon) -> list[dict[str, str]]:
    return list(daemon.ask("GET", "/api/cluster/status").json()["peers"])


def names(daemon: Daemon) -> list[str]:
    return [each["name"] for each in peers(daemon)]
