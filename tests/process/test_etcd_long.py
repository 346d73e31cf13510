"""heliosd beside a real etcd, in full: what `make prove-etcd` shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon_process import wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import METRICS, Listener, Nodes, beside

pytestmark = [pytest.mark.needs("etcd"), pytest.mark.slow]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with EtcdCluster.start(3) as cluster, beside(tmp_path, cluster) as daemons:
        yield Nodes(cluster, daemons, patience=1.0)


def test_every_node_publishes_a_new_leader_within_a_second_20_times(nodes: Nodes) -> None:
    late = nodes.kill_leader_and_compare(rounds=20)
    print("seconds behind etcd:", " ".join(f"{each:.2f}" for each in sorted(late)))
    assert max(late) < 1.0


def test_twenty_seconds_without_a_quorum(nodes: Nodes) -> None:
    nodes.lose_the_quorum(seconds=20.0)


def test_each_member_is_stopped_while_it_is_in_use(nodes: Nodes) -> None:
    for place in range(3):
        nodes.stop_the_member_in_use(place)


def numbers_of(metric: str, listener: Listener) -> list[int]:
    return [event["seq"] for event in listener.events() if metric in event["data"]]


def test_a_cluster_that_is_made_again_gets_a_new_epoch(nodes: Nodes) -> None:
    with nodes.listeners() as listeners, nodes.daemons[0].client() as http:
        for number in range(20):
            answer = http.post(METRICS, json={"name": f"app_{number}", "type": "gauge"})
            assert answer.status_code == 201
        nodes.cluster.make_anew()
        wait_until(lambda: all(each.of("welcome") for each in listeners), 20.0)
        for listener in listeners:
            (_, welcome), *more = listener.of("welcome")
            assert not more
            assert (welcome["data"]["recovered"], welcome["data"]["reason"]) == (False, "epoch_changed")
        nodes.wait_whole()
        assert http.get(METRICS).json()["total_metrics"] == 0
        assert http.post(METRICS, json={"name": "app_new", "type": "gauge"}).status_code == 201
        wait_until(lambda: all(numbers_of("app_new", each) for each in listeners))
        assert len({tuple(numbers_of("app_new", each)) for each in listeners}) == 1


def test_a_metric_of_one_node_is_sent_by_another_within_200_ms(nodes: Nodes) -> None:
    took = nodes.seconds_from_write_to_stream(writes=500)
    print(f"p50 {took[250] * 1000:.0f} ms, p99 {took[494] * 1000:.0f} ms, longest {took[-1] * 1000:.0f} ms")
    assert took[494] <= 0.2
