"""heliosd beside a real etcd of three members: what its clients receive while members of etcd fail.

Short forms; the long ones are in `test_etcd_long.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.deadlines import SECONDS, at_most
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import METRICS, Listener, Nodes, beside, etcd_config, listening, starting
from tests.support.ports import free_port

pytestmark = pytest.mark.needs("etcd")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three heliosd beside three members of etcd. Whoever hurts them heals them."""
    with EtcdCluster.start(3) as cluster:
        folder = tmp_path_factory.mktemp("nodes")
        with beside(folder, cluster) as daemons:
            yield Nodes(cluster, daemons)


@pytest.mark.extended
def test_all_nodes_list_the_members_and_the_heliosd_that_are_present(nodes: Nodes) -> None:
    def seen() -> bool:
        return all(
            [each["id"] for each in status["observers"]] == ["etcd-1", "etcd-2", "etcd-3"]
            for status in nodes.statuses()
        )

    wait_until(seen)
    statuses = nodes.statuses()
    assert len({status["leader"]["id"] for status in statuses}) == 1
    assert {status["node"]["name"] for status in statuses} == {"etcd-1", "etcd-2", "etcd-3"}
    assert sorted(status["node"]["state"] for status in statuses) == ["Follower", "Follower", "Leader"]
    assert not any(status["stale"] for status in statuses)
    for member in (*(status["node"] for status in statuses), *statuses[0]["peers"]):
        assert member["version"].startswith("3.")
        assert 0 < member["db_size_bytes"] < member["db_quota_bytes"]
        assert member["alarms"] == []
    kinds = {each["address_kind"] for status in statuses for each in (status["leader"], *status["peers"])}
    assert kinds == {"client"}


def test_a_killed_leader_is_logged_once_on_every_node_under_the_same_numbers(nodes: Nodes) -> None:
    nodes.kill_leader_and_compare(rounds=1)


def test_after_a_transfer_every_node_soon_tells_a_status_with_the_new_leader(nodes: Nodes) -> None:
    nodes.wait_whole()
    with nodes.listeners() as listeners:
        with nodes.daemons[0].client() as http:
            answer = http.post("/api/cluster/leadership/transfer", json={})
        leader = answer.json()["leader"]

        def shows(listener: Listener) -> bool:
            updates = listener.of("status_update")
            return bool(updates) and updates[-1][1]["data"]["leader"] == leader

        # The next one by the clock may be five seconds away.
        wait_until(lambda: all(map(shows, listeners)), at_most(2.5))


def test_metrics_written_on_one_node_are_in_the_stream_and_the_metrics_of_another(nodes: Nodes) -> None:
    assert nodes.seconds_from_write_to_stream(writes=50)[-1] < at_most(1.0)


def test_a_token_revoked_on_one_node_is_refused_by_all(nodes: Nodes) -> None:
    token = nodes.daemons[0].token("viewer")
    headers = {"Authorization": f"Bearer {token}"}
    with listening(nodes.daemons[2], token) as client:
        assert all(
            httpx.get(f"{each.url}/api/auth/me", headers=headers, verify=False).is_success
            for each in nodes.daemons
        )
        assert httpx.post(f"{nodes.daemons[0].url}/api/auth/logout", headers=headers, verify=False).is_success

        def refused(each: Daemon) -> bool:
            return httpx.get(f"{each.url}/api/auth/me", headers=headers, verify=False).status_code == 401

        wait_until(lambda: all(map(refused, nodes.daemons)), at_most(2.0))
        wait_until(lambda: client.closed == 4401, at_most(2.0))


def test_without_a_quorum_nothing_is_claimed_and_everything_comes_back(nodes: Nodes) -> None:
    nodes.lose_the_quorum(seconds=5.0)


def test_a_stopped_member_is_left_for_another(nodes: Nodes) -> None:
    nodes.stop_the_member_in_use()


@pytest.mark.extended
def test_a_heliosd_that_was_away_over_a_compaction_tells_what_it_missed(tmp_path: Path, nodes: Nodes) -> None:
    nodes.compact_while_away(tmp_path)


def test_etcd_that_is_not_there_is_no_reason_not_to_start(tmp_path: Path, nodes: Nodes) -> None:
    nothing = f"http://127.0.0.1:{free_port()}"
    config = etcd_config(tmp_path / "alone", "etcd-1", nodes.cluster, endpoints=[nothing])
    with starting(tmp_path / "alone", config) as daemon:
        daemon.wait_listening()
        answer = httpx.get(f"{daemon.url}/readyz", timeout=SECONDS, verify=False)
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert answer.json()["reason"]
        with daemon.client() as http:
            status = http.get("/api/cluster/status").json()
            assert (status["leader"]["id"], status["node"]["state"], status["stale"]) == ("", "Unknown", True)
            began = time.monotonic()
            refused = http.post(METRICS, json={"name": "app_x", "type": "gauge"})
            assert (refused.status_code, refused.json()) == (503, {"error": "No leader"})
            assert time.monotonic() - began < at_most(2.0)
        logged = [line for line in daemon.lines if line["event"].startswith("etcd:")]
        assert 1 <= len(logged) <= 4, logged
        assert daemon.stop() == 0
