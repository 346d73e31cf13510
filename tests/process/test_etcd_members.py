"""Members of a real etcd that come, go and are named alike, as heliosd follows them."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import METRICS, Listener, beside, listening

pytestmark = pytest.mark.needs("etcd")
SECONDS = 20.0


def leader_of(daemon: Daemon) -> str:
    return str(daemon.ask("GET", "/api/cluster/status").json()["leader"]["id"])


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.extended
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


@pytest.mark.extended
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


def test_a_member_that_is_removed_through_heliosd_ends_well_and_is_only_reported_as_removed(
    tmp_path: Path,
) -> None:
    """The leader of three, then the follower of the two that are left."""
    with EtcdCluster.start(3) as cluster, beside(tmp_path, cluster) as daemons, ExitStack() as stack:
        token = daemons[0].token()
        listeners = [stack.enter_context(listening(daemon, token)) for daemon in daemons]
        left = list(daemons)
        remove(cluster, left, cluster.leader())
        for listener in listeners:
            assert changes_before(left[0], "app_first", listener) == ["removed"]
        remove(cluster, left, 1 - cluster.leader())
        for listener in listeners:
            assert changes_before(left[0], "app_second", listener) == ["removed"] * 2


def remove(cluster: EtcdCluster, daemons: list[Daemon], place: int) -> None:
    """A member, by a heliosd that is not beside it; both are taken from the lists."""
    member, _ = cluster.members[place], daemons.pop(place)
    wait_until(lambda: removed(daemons[0], member.name), SECONDS)
    assert member.process is not None
    assert member.process.wait(SECONDS) == 0, member.log[-2000:]
    del cluster.members[place]


def changes_before(daemon: Daemon, metric: str, listener: Listener) -> list[str]:
    """What this client has heard of members up to a metric that is registered now, if it is not yet: it comes in
    the stream behind all that has happened so far."""

    def registered() -> bool:
        return daemon.ask("POST", METRICS, json={"name": metric, "type": "gauge"}).status_code in {201, 409}

    wait_until(registered, SECONDS)
    wait_until(
        lambda: any(metric in each["data"] for _, each in listener.of("custom_metrics")),
        SECONDS,
    )
    return [each["data"]["event_type"] for _, each in listener.of("peer_change")]


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
