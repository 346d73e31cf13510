"""A cluster of etcd that is set back to an earlier state under running heliosd: same id, lower revisions, lower
terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import METRICS, Listener, beside, listening

pytestmark = pytest.mark.needs("etcd")
PATIENCE_SECONDS = 30.0


@pytest.mark.parametrize(
    ("size", "overtaken"),
    [
        pytest.param(1, False, marks=pytest.mark.slow),
        pytest.param(1, True, marks=pytest.mark.slow),
        (3, False),
    ],
)
def test_a_cluster_that_is_set_back_gets_a_new_epoch_and_its_leaders_from_there_on(
    tmp_path: Path, size: int, overtaken: bool
) -> None:
    """`overtaken`: others have written so much before anybody looks that revisions do not show it."""
    with (
        EtcdCluster.start(size) as cluster,
        beside(tmp_path, cluster, names=["etcd-1", "watcher"]) as daemons,
    ):
        daemons[0].register_gauge("app_kept")
        copy = cluster.copy_data()
        for daemon in daemons:
            daemon.wait_ready()
        raise_the_term(cluster, daemons)
        for number in range(5):
            daemons[0].register_gauge(f"app_undone_{number}")
        before = [history(daemon) for daemon in daemons]
        term = status(daemons[0])["node"]["term"]
        token = daemons[0].token()
        with listening(daemons[0], token) as one, listening(daemons[1], token) as other:
            cluster.set_back(copy)
            for _ in range(100 if overtaken else 0):
                cluster.put("/elsewhere", "x")
            for listener in (one, other):
                wait_until(lambda it=listener: bool(it.of("welcome")), PATIENCE_SECONDS)  # type: ignore[misc]
            for daemon in daemons:
                wait_until(lambda it=daemon: it.is_ready(), PATIENCE_SECONDS)  # type: ignore[misc]
            assert status(daemons[0])["node"]["term"] < term
            begun = [listener.of("welcome")[-1][1]["data"] for listener in (one, other)]
            assert begun[0]["epoch"] == begun[1]["epoch"] != before[0]["epoch"]
            assert (begun[0]["recovered"], begun[0]["reason"]) == (False, "epoch_changed")
            for daemon in daemons:
                assert undone(daemon) == []
                gone = past(daemon, before[0])
                assert (gone.status_code, gone.json()["epoch"]) == (410, begun[0]["epoch"])
            # The next leader is logged in the new epoch, though its term is no higher than one logged before.
            heard = [len(listener.events()) for listener in (one, other)]
            change_the_leader(cluster)
            for listener, count in zip((one, other), heard, strict=True):
                wait_until(lambda it=listener, n=count: elected(it, n) is not None, PATIENCE_SECONDS)  # type: ignore[misc]
            leader, term_now = elected(one, heard[0]) or ("", 0)
            assert (leader, term_now) == elected(other, heard[1])
            assert term_now <= term
            daemons[1].register_gauge("app_new")
            # One may have been greeted before the other, and was then sent some more.
            first = max(each["seq"] for each in begun) + 1

            def numbers(listener: Listener) -> list[int]:
                return [seq for seq in after(listener, begun[0]) if seq >= first]

            for listener in (one, other):
                wait_until(lambda it=listener: any("app_new" in each["data"] for each in it.events()))  # type: ignore[misc]
            wait_until(lambda: numbers(one) == numbers(other))
            found = numbers(one)
            assert found == list(range(found[0], found[-1] + 1))
        for daemon in daemons:
            assert daemon.stop() == 0


def raise_the_term(cluster: EtcdCluster, daemons: list[Daemon]) -> None:
    for _ in range(3):
        change_the_leader(cluster)
        for daemon in daemons:
            wait_until(lambda it=daemon: it.is_ready(), PATIENCE_SECONDS)  # type: ignore[misc]


def change_the_leader(cluster: EtcdCluster) -> None:
    cluster.restart(cluster.leader())
    cluster.leader()


def status(daemon: Daemon) -> Any:
    return daemon.ask("GET", "/api/cluster/status").json()


def history(daemon: Daemon) -> Any:
    return daemon.ask("GET", "/api/cluster/history").json()


def past(daemon: Daemon, before: Any) -> Any:
    query = {"epoch": before["epoch"], "after": str(before["seq"])}
    return daemon.ask("GET", "/api/cluster/history", params=query)


def undone(daemon: Daemon) -> list[str]:
    metrics = daemon.ask("GET", METRICS).json()["metrics"]
    return [name for name in metrics if name.startswith("app_undone")]


def elected(listener: Listener, count: int) -> tuple[str, int] | None:
    """The last leader in the events beyond so many."""
    changes = [each["data"] for each in listener.events()[count:] if each["type"] == "state_change"]
    return (changes[-1]["leader"], changes[-1]["term"]) if changes and changes[-1]["leader"] else None


def after(listener: Listener, welcome: Any) -> list[int]:
    """The numbers of the events after the last welcome."""
    messages = [message for _, message in listener.heard]
    last = max(place for place, message in enumerate(messages) if message["type"] == "welcome")
    assert messages[last]["data"]["epoch"] == welcome["epoch"]
    return [message["seq"] for message in messages[last:] if "seq" in message]
