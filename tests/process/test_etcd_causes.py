"""What a state change of a real etcd says of its cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import wait_until
from tests.support.deadlines import MEASURES
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import Listener, beside, listening

pytestmark = pytest.mark.needs("etcd")
SECONDS = 20.0


def changes(listener: Listener) -> list[dict[str, Any]]:
    """The logged state changes."""
    return [each["data"] for each in listener.events() if each["type"] == "state_change"]


@pytest.mark.parametrize(
    ("act", "cause"), [("kill", "stopped"), ("stop", "stopped"), ("transfer", "transfer")]
)
def test_a_lost_leader_comes_with_its_cause_and_the_names_of_its_members(
    tmp_path: Path, act: str, cause: str
) -> None:
    with (
        EtcdCluster.start(3) as cluster,
        beside(tmp_path, cluster, names=["watcher"]) as (daemon,),
        listening(daemon, daemon.token()) as listener,
        daemon.client() as http,
    ):
        place = cluster.leader()
        name = cluster.members[place].name
        match act:
            case "kill":
                cluster.kill(place)
            case "stop":
                cluster.stop(place)
            case _:
                assert http.post("/api/cluster/leadership/transfer").status_code == 200
        wait_until(lambda: len(changes(listener)) == 2, SECONDS)
        lost, elected = changes(listener)
        assert (lost["member_name"], lost["leader"]) == (name, "")
        # On a busy machine answers are late, and a leader that was too slow steps down.
        assert lost["cause"] == cause or (lost["cause"] == "stepped_down" and not MEASURES), lost
        assert lost["evidence"]["last_answer_ms"] >= 0
        assert elected["leader_name"] == elected["member_name"] != name
        assert lost["observed_at"] <= elected["observed_at"]
        assert "terms_unseen" not in elected or elected["terms_unseen"][1] < elected["term"]
