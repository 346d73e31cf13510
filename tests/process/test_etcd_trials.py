"""Faults of a real etcd, blind from a seed: how often the cause that heliosd reports is the right one. And planned
acts, of which nothing else may be reported than what they change.

`ETCD_TRIALS` is their number (100 faults, 200 acts), `ETCD_SEED` the seed.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.support.etcd_cluster import EtcdAuth, EtcdCluster
from tests.support.etcd_nodes import beside, etcd_config, listening, starting
from tests.support.etcd_quiet_trials import ACTS, QuietTrials
from tests.support.etcd_trials import CAUSES, CauseTrials
from tests.support.spread_cluster import SpreadCluster, network

pytestmark = [pytest.mark.needs("etcd"), pytest.mark.slow]
FAULTS = int(os.environ.get("ETCD_TRIALS", "100"))
PLANNED = int(os.environ.get("ETCD_TRIALS", "200"))
SEED = int(os.environ.get("ETCD_SEED", "1"))


def test_the_cause_of_a_lost_leader_is_right_in_95_of_100_blind_trials(tmp_path: Path) -> None:
    rng = Random(SEED)
    with network(), SpreadCluster.start(3) as cluster, ExitStack() as stack:
        daemon = stack.enter_context(starting(tmp_path, etcd_config(tmp_path, "watcher", cluster)))
        daemon.wait_listening()
        daemon.wait_ready()
        trials = CauseTrials(cluster, rng, stack.enter_context(listening(daemon, daemon.token())))
        for _ in range(FAULTS):
            trials.run(rng.choice(list(CAUSES)))
        print(trials.report())
        assert trials.right() >= 0.95 * FAULTS


def test_planned_acts_are_reported_as_they_are_and_nothing_else_is(tmp_path: Path) -> None:
    rng, auth = Random(SEED), EtcdAuth()
    password = tmp_path / "etcd_password"
    password.touch(0o600)
    password.write_text(auth.password)
    login = f'username = "{auth.username}"\npassword_file = "{password}"'
    with (
        EtcdCluster.start(3, auth=auth) as cluster,
        beside(tmp_path, cluster, names=["watcher", "other"], etcd=login) as daemons,
        ExitStack() as stack,
    ):
        token = daemons[0].token()
        listeners = [stack.enter_context(listening(daemon, token)) for daemon in daemons]
        trials = QuietTrials(cluster, daemons, listeners, rng)
        for _ in range(PLANNED):
            trials.run(rng.choice(ACTS))
        print(trials.done)
        assert not trials.wrong, "\n".join(trials.wrong)
