"""Changes of etcd's members by request, where etcd refuses for a while, or an answer is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.etcd import admin, presence
from heliosd.cluster.etcd import backend as etcd_backend
from heliosd.cluster.etcd.admin import as_request_refused
from heliosd.cluster.etcd.client.errors import (
    EtcdDenied,
    EtcdError,
    EtcdLearnerBehind,
    EtcdLeaseGone,
    EtcdLoginRefused,
    EtcdNoSpace,
    EtcdOutcomeUnknown,
    EtcdUnavailable,
)
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.requests import Compare, Op, member_body
from heliosd.cluster.etcd.client.responses import EtcdMember, MemberList, TxnResult
from heliosd.cluster.etcd.presence import PROMOTE_SECONDS
from heliosd.config.model import EtcdConfig, HistoryConfig
from heliosd.errors import Conflict, NoLeader
from tests.support.etcd_model import LAYOUT, Etcd
from tests.support.etcd_model_client import MEMBER, URL, ModelClient
from tests.support.rest_server import Rest
from tests.support.simulated_harness import MemoryStore

PEERS = "/api/cluster/peers"
OTHER = EtcdMember("2", "etcd-2", ("http://127.0.0.1:2381",), (), is_learner=True)
ADDED = "3"
NEW = {"id": "etcd-3", "address": "127.0.0.1:2382"}
MOST_SECONDS = 60.0
"""Of the mock clock."""
NO_SPACE = EtcdNoSpace(URL, "etcdserver: mvcc: database space exceeded", 8)


class Members(ModelClient):
    """One voter, which leads, and a learner. `full`: only members can be changed, as under NOSPACE. `lost`: changes
    of members are done, and not answered."""

    def __init__(self, etcd: Etcd, identity: ClusterIdentity) -> None:
        super().__init__(etcd, identity)
        self.listed = [MEMBER, OTHER]
        self.full = self.lost = False
        self.in_sync = True
        self.revoked: list[str] = []

    async def member_list(self, endpoint: str = "") -> MemberList:
        await trio.lowlevel.checkpoint()
        return MemberList(tuple(self.listed), self.etcd.raft_term)

    async def member_add(self, peer_urls: Sequence[str], *, learner: bool = True) -> EtcdMember:
        await trio.lowlevel.checkpoint()
        added = EtcdMember(ADDED, "", tuple(peer_urls), (), learner)
        self.listed.append(added)
        if self.lost:
            raise EtcdOutcomeUnknown(URL, "the write was sent and not answered")
        return added

    async def member_promote(self, leader_endpoint: str, member_id: str) -> None:
        await trio.lowlevel.checkpoint()
        member_body(member_id)  # raises, as the client does, for what is no member's id
        if not self.in_sync:
            raise EtcdLearnerBehind(URL, "can only promote a learner member which is in sync with leader", 9)
        self.change(member_id, is_learner=False)

    def change(self, member_id: str, **fields: Any) -> None:
        self.listed = [replace(each, **fields) if each.id == member_id else each for each in self.listed]

    async def lease_revoke(self, lease: str) -> None:
        await super().lease_revoke(lease)
        self.revoked.append(lease)

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
        self._rest = Rest(backend)

    async def write(self, method: str, body: object, key: str = "k") -> tuple[int, Any]:
        return await self._rest.ask_json(method, PEERS, body, headers={"Idempotency-Key": key})

    async def until(self, holds: Callable[[], bool]) -> None:
        with trio.fail_after(MOST_SECONDS):
            while not holds():  # noqa: ASYNC110 (the model signals nothing)
                await trio.sleep(0.1)

    def is_voter(self, member_id: str) -> bool:
        return any(each.id == member_id and not each.is_learner for each in self.client.listed)

    def pending(self) -> int:
        """Learners to be promoted."""
        folder = LAYOUT.folder("learners"), LAYOUT.folder_end("learners")
        return len(self.client.etcd.under(*folder))


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
    monkeypatch.setattr(presence, "MISSING_LOOKS", 4)  # every second of the mock clock costs polls
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
        cluster = Cluster(clients[0], backend)
        await cluster.until(lambda: backend.not_ready() is None)
        yield cluster
        nursery.cancel_scope.cancel()


async def test_a_change_of_members_that_finds_no_space_is_done_under_the_same_key_once_there_is_some(
    autojump_clock: MockClock,
    cluster: Cluster,
) -> None:
    cluster.client.full = True
    status, body = await cluster.write("DELETE", {"id": "etcd-2"})
    assert (status, body["error"]) == (503, f"etcd refuses: {NO_SPACE.reason}")
    cluster.client.full = False
    assert (await cluster.write("DELETE", {"id": "etcd-2"}))[0] == 200
    assert cluster.client.listed == [MEMBER]


@pytest.mark.parametrize("started", [False, True])
async def test_an_added_member_whose_answer_was_lost_is_found_under_the_same_key_and_promoted(
    autojump_clock: MockClock, cluster: Cluster, *, started: bool
) -> None:
    cluster.client.lost, cluster.client.in_sync = True, False
    assert (await cluster.write("POST", NEW))[0] == 504
    if started:
        cluster.client.change(ADDED, name=NEW["id"], client_urls=("http://127.0.0.1:2389",))
    status, body = await cluster.write("POST", NEW)
    assert (status, body["peer"]["id"]) == (201, ADDED)
    assert (await cluster.write("POST", NEW, "another"))[0] == 409
    cluster.client.in_sync = True
    await cluster.until(lambda: cluster.is_voter(ADDED))
    await cluster.until(lambda: not cluster.pending())
    assert not cluster.is_voter(OTHER.id), "heliosd did not add it"


async def test_a_member_is_not_added_where_it_could_not_be_promoted_later(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    cluster.client.full = True
    assert (await cluster.write("POST", NEW))[0] == 503
    assert cluster.client.listed == [MEMBER, OTHER]
    cluster.client.full = False
    assert (await cluster.write("POST", NEW))[0] == 201
    await cluster.until(lambda: cluster.is_voter(ADDED))


async def test_a_removal_that_is_given_up_takes_its_announcement_back(
    autojump_clock: MockClock, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "SHOWN_SECONDS", 60.0)
    monkeypatch.setattr(admin, "SILENCE_SECONDS", 60.0)
    with trio.move_on_after(1):
        await cluster.write("DELETE", {"id": "etcd-2"})
    assert cluster.client.listed == [MEMBER, OTHER]
    assert len(cluster.client.revoked) == 1


async def test_a_learner_that_is_removed_is_forgotten_and_not_promoted_when_it_comes_again(
    autojump_clock: MockClock,
    cluster: Cluster,
) -> None:
    cluster.client.in_sync = False
    assert (await cluster.write("POST", NEW))[0] == 201
    assert (await cluster.write("DELETE", {"id": ADDED}, "delete"))[0] == 200
    await cluster.until(lambda: not cluster.pending())
    cluster.client.in_sync = True
    await cluster.client.member_add([f"http://{NEW['address']}"])
    await trio.sleep(3 * PROMOTE_SECONDS)
    assert not cluster.is_voter(ADDED)


async def test_a_learner_under_a_name_that_is_none_of_heliosd_is_no_fault(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    cluster.client.etcd.put(LAYOUT.learner("not-an-address"), b'{"address":"nowhere"}')
    await cluster.until(lambda: not cluster.pending())
    assert (await cluster.write("POST", NEW))[0] == 201


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
