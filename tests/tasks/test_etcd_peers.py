"""Changes of etcd's members by request, where etcd refuses for a while, or an answer is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.etcd import backend as etcd_backend
from heliosd.cluster.etcd.admin import as_request_refused
from heliosd.cluster.etcd.client.errors import (
    EtcdDenied,
    EtcdError,
    EtcdLeaseGone,
    EtcdLoginRefused,
    EtcdNoSpace,
    EtcdUnavailable,
)
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.requests import Compare, Op
from heliosd.cluster.etcd.client.responses import EtcdMember, MemberList, TxnResult
from heliosd.config.model import EtcdConfig, HistoryConfig
from heliosd.errors import Conflict, NoLeader
from tests.support.etcd_model import Etcd
from tests.support.etcd_model_client import MEMBER, URL, ModelClient
from tests.support.rest_server import Rest
from tests.support.simulated_harness import MemoryStore

PEERS = "/api/cluster/peers"
OTHER = EtcdMember("2", "etcd-2", ("http://127.0.0.1:2381",), (), is_learner=True)
MOST_SECONDS = 60.0
"""Of the mock clock."""
NO_SPACE = EtcdNoSpace(URL, "etcdserver: mvcc: database space exceeded", 8)


class Members(ModelClient):
    """One voter, which leads, and a learner. `full`: only members can be changed, as under NOSPACE."""

    def __init__(self, etcd: Etcd, identity: ClusterIdentity) -> None:
        super().__init__(etcd, identity)
        self.listed = [MEMBER, OTHER]
        self.full = False

    async def member_list(self, endpoint: str = "") -> MemberList:
        await trio.lowlevel.checkpoint()
        return MemberList(tuple(self.listed), self.etcd.raft_term)

    async def member_remove(self, member_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.listed = [each for each in self.listed if each.id != member_id]

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        if self.full:
            raise NO_SPACE
        return await super().txn(compares, then, otherwise)


class Cluster:
    """One heliosd on a model of etcd, asked over REST."""

    def __init__(self, client: Members, backend: etcd_backend.EtcdBackend) -> None:
        self.client = client
        self.backend = backend
        self._rest = Rest(backend)

    async def write(self, method: str, body: object, key: str = "k") -> tuple[int, Any]:
        return await self._rest.ask_json(method, PEERS, body, headers={"Idempotency-Key": key})


@pytest.fixture
async def cluster(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cluster]:
    etcd, store = Etcd(), MemoryStore()
    clients: list[Members] = []

    def make(_config: EtcdConfig, identity: ClusterIdentity) -> Members:
        clients.append(Members(etcd, identity))
        return clients[-1]

    monkeypatch.setattr(etcd_backend, "EtcdClient", make)
    backend = etcd_backend.EtcdBackend(
        node_id="etcd-1",
        config=EtcdConfig(endpoints=(URL,)),
        history=HistoryConfig(max_events=100),
        directory=tmp_path,
        saved=store.load(),
        save=store.save,
        revoked=lambda _jti, _expires_at: None,
        now=lambda: Instant(1_800_000_000.0 + trio.current_time(), trio.current_time()),
        buffer=256,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(backend.run)
        with trio.fail_after(MOST_SECONDS):
            while backend.not_ready() is not None:  # noqa: ASYNC110 (the backend signals nothing)
                await trio.sleep(0.1)
        yield Cluster(clients[0], backend)
        nursery.cancel_scope.cancel()


async def test_a_change_of_members_that_finds_no_space_is_done_under_the_same_key_once_there_is_some(
    cluster: Cluster,
) -> None:
    cluster.client.full = True
    status, body = await cluster.write("DELETE", {"id": "etcd-2"})
    assert (status, body["error"]) == (503, f"etcd refuses: {NO_SPACE.reason}")
    cluster.client.full = False
    assert (await cluster.write("DELETE", {"id": "etcd-2"}))[0] == 200
    assert cluster.client.listed == [MEMBER]


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (NO_SPACE, NoLeader),
        (EtcdLoginRefused(URL, "invalid user ID or password", 3), NoLeader),
        (EtcdLeaseGone(URL, "requested lease not found", 5), NoLeader),
        (EtcdUnavailable(URL, "etcdserver: unhealthy cluster"), NoLeader),
        (EtcdUnavailable(URL, "no answer"), NoLeader),
        (EtcdDenied(URL, "permission denied", 7), Conflict),
    ],
)
def test_only_a_refusal_that_lasts_is_a_conflict(error: EtcdError, meaning: type[Exception]) -> None:
    assert type(as_request_refused(error)) is meaning
