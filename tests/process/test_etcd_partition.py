"""Members of etcd that are cut off from each other and from heliosd, and healed.

It takes network namespaces, so root: a part of `make prove-etcd`, skipped elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.deadlines import at_most
from tests.support.etcd_nodes import METRICS, Listener, Nodes, etcd_config, listening, starting
from tests.support.spread_cluster import SpreadCluster, disconnect, heal, network

pytestmark = [pytest.mark.needs("etcd"), pytest.mark.slow]
# With etcd 3.5's default a member that comes back causes no second election, so they can be counted.
OPTIONS = ["--pre-vote"]


@contextmanager
def spread(folder: Path) -> Iterator[Nodes]:
    with network(), SpreadCluster.start(3, options=OPTIONS) as cluster, ExitStack() as stack:
        daemons: list[Daemon] = []
        for name in ("etcd-1", "etcd-2", "etcd-3"):
            config = etcd_config(folder / name, name, cluster)
            daemons.append(stack.enter_context(starting(folder / name, config)))
        for daemon in daemons:
            daemon.wait_listening()
            daemon.wait_ready()
        yield Nodes(cluster, daemons)


def last_leader(listener: Listener) -> str:
    changes = listener.of("state_change")
    return str(changes[-1][1]["data"]["leader"]) if changes else "(none sent)"


def test_two_members_that_are_cut_off_and_healed_leave_no_trace_but_what_was_true(tmp_path: Path) -> None:
    with spread(tmp_path) as nodes, nodes.listeners() as listeners, nodes.daemons[0].client() as http:
        assert http.post(METRICS, json={"name": "app_cut", "type": "counter"}).status_code == 201
        leader = nodes.cluster.leader()
        away = (leader, (leader + 1) % 3)
        for place in away:
            disconnect(place)
        lost = time.monotonic()
        wait_until(lambda: all(last_leader(each) == "" for each in listeners), at_most(6.0))
        print(f"sent after {time.monotonic() - lost:.1f} s")
        while time.monotonic() < lost + 8.0:
            assert http.put(METRICS, json={"name": "app_cut"}).status_code in {503, 504}
        for place in away:
            heal(place)
        nodes.wait_whole()
        assert http.put(METRICS, json={"name": "app_cut"}).status_code == 200
        wait_until(lambda: len({nodes.cluster.status(place) is None for place in range(3)}) == 1)
        assert "" in [event["data"].get("leader") for event in nodes.compared(listeners)]


def test_a_leader_that_is_cut_off_is_replaced_and_logged_once(tmp_path: Path) -> None:
    with spread(tmp_path) as nodes, nodes.listeners() as listeners:
        place = nodes.cluster.leader()
        disconnect(place)
        old = nodes.statuses()[0]["leader"]["id"]
        wait_until(lambda: all(last_leader(each) not in {"", old, "(none sent)"} for each in listeners))
        heal(place)
        nodes.wait_whole()
        sent = [e["data"]["leader"] for e in nodes.compared(listeners) if e["type"] == "state_change"]
        assert len(sent) == 2
        assert sent[0] == ""


def test_a_heliosd_goes_on_receiving_when_the_member_it_watches_is_cut_off(tmp_path: Path) -> None:
    with spread(tmp_path) as nodes:
        nodes.wait_whole()
        leader = nodes.cluster.leader()
        place = (leader + 1) % 3
        near, far = nodes.daemons[place], nodes.daemons[leader]
        with listening(near, near.token()) as listener, far.client() as http:
            assert http.post(METRICS, json={"name": "app_cut", "type": "counter"}).status_code == 201
            disconnect(place)
            began = time.monotonic()

            def heard() -> bool:
                http.put(METRICS, json={"name": "app_cut"})
                return any(at > began + 0.2 and "seq" not in m for at, m in listener.of("custom_metrics"))

            wait_until(heard, at_most(5.0))
            heal(place)
