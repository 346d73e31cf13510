"""A request of a client is carried out once, whatever the network does with its copies."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from msgspec.structs import replace

from heliosd.cluster.simulated.requests import ClientRequest, RequestDone, Requests
from heliosd.errors import NoLeader
from heliosd.raft.simulation.network import NetworkConditions
from heliosd.raft.simulation.proposals import WriteCommands
from tests.support.checked_cluster import ELECTION, MS, OPTIONS, CheckedCluster, make_cluster


class Client:
    """The requests of member `a`, on a network that repeats and reorders."""

    def __init__(self, seed: int) -> None:
        conditions = NetworkConditions(latency=10.0 * MS, repeats=0.7, ordered=False)
        self.rng = Random(seed)
        self.checked = CheckedCluster(
            make_cluster("abc", seed=seed, options=replace(OPTIONS, conditions=conditions))
        )
        self.requests = Requests(self.checked.cluster, "a", patience=200 * MS, pause=10 * MS)
        self.sent: list[ClientRequest] = []

    def run(self, ticks: int) -> None:
        cluster = self.checked.cluster
        end = cluster.now + ticks
        while cluster.now < end:
            seen = len(self.checked.history)
            self.checked.run(MS)
            for observation in self.checked.history[seen:]:
                self.requests.observe(observation)
            self.requests.submit()

    def write(self) -> None:
        request = ClientRequest(WriteCommands((b"w%d" % len(self.sent),)), lambda: None)
        self.sent.append(request)
        self.requests.add(request)
        self.requests.submit()


@pytest.mark.parametrize("seed", range(20))
def test_no_command_is_applied_twice_when_a_leader_restarts_between_copies(seed: int) -> None:
    client = Client(seed)
    cluster = client.checked.cluster
    client.checked.run_until_led()
    for _ in range(4):
        for _ in range(15):
            client.write()
            client.run(2 * MS)
        client.run(client.rng.randrange(20) * MS)
        leader = client.checked.leader()
        if leader not in {"", "a"}:
            cluster.crash(leader)
            cluster.restart(leader)
        client.run(5 * ELECTION)
    client.checked.run_until_led()
    client.run(10 * ELECTION)
    applied = Counter(client.checked.commands("a"))
    assert max(applied.values(), default=0) <= 1
    for number, request in enumerate(client.sent):
        if isinstance(request.outcome, RequestDone):
            assert applied[b"w%d" % number] == 1
        elif isinstance(request.outcome, NoLeader):
            assert applied[b"w%d" % number] == 0
