"""Permits with etcd, where the asker goes away before the answer."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.etcd.admin import MemberAdmin
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.requests import Compare, Op
from heliosd.cluster.etcd.client.responses import EtcdMember, Lease, TxnResult
from heliosd.cluster.etcd.context import EtcdContext
from heliosd.cluster.etcd.permits import EtcdPermits
from heliosd.cluster.etcd.poller import Poller
from heliosd.errors import Conflict
from tests.support.etcd_model import CLUSTER, LAYOUT, Etcd
from tests.support.etcd_model_client import URL, ModelClient

LEARNER = EtcdMember("2", "etcd-2", (), (), is_learner=True)


class AnswersLost(ModelClient):
    """Its transactions are done, and not answered."""

    def __init__(self, etcd: Etcd) -> None:
        super().__init__(etcd, ClusterIdentity())
        self.revoked: list[str] = []

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        await super().txn(compares, then, otherwise)
        await trio.sleep_forever()
        raise AssertionError

    async def lease_revoke(self, lease: str) -> None:
        await super().lease_revoke(lease)
        self.revoked.append(lease)


class SlowLeases(ModelClient):
    """Grants leases after a second, each from then on."""

    def __init__(self, etcd: Etcd) -> None:
        super().__init__(etcd, ClusterIdentity())
        self.ends: dict[str, float] = {}
        """Lease -> Unix seconds."""

    async def lease_grant(self, seconds: int) -> Lease:
        begins = wall()
        await trio.sleep(1)
        lease = await super().lease_grant(seconds)
        self.ends[lease.id] = begins + seconds
        return lease


def wall() -> float:
    return 1.8e9 + trio.current_time()


def permits_of(client: ModelClient) -> EtcdPermits:
    async def members() -> Any:
        return (*(await client.member_list()).members, LEARNER)

    context = SimpleNamespace(
        client=client,
        layout=LAYOUT,
        view=SimpleNamespace(cluster_id=CLUSTER),
        now=lambda: Instant(wall(), trio.current_time()),
    )
    return EtcdPermits(
        cast(EtcdContext, context),
        cast(MemberAdmin, SimpleNamespace(members=members)),
        cast(Poller, SimpleNamespace(url_of=lambda _member: URL)),
    )


async def test_a_permit_whose_asker_got_no_answer_ends_at_once(autojump_clock: MockClock) -> None:
    client = AnswersLost(Etcd())
    permits = permits_of(client)
    with trio.move_on_after(1) as patience:
        await permits.grant(LEARNER.id, "ann", 600)
    assert patience.cancelled_caught
    permit = await permits.current()
    assert permit is not None, "it was written"
    assert client.revoked == [permit.lease]


async def test_the_lease_of_a_permit_does_not_end_before_it(autojump_clock: MockClock) -> None:
    client = SlowLeases(Etcd())
    permits = permits_of(client)
    permit = await permits.grant(LEARNER.id, "ann", 2.5)
    assert permit.expires_at - permit.granted_at == 2.5
    assert permit.expires_at <= client.ends[permit.lease]
    renewed = await permits.renew(permit.id, 4.5)
    assert permit.expires_at < renewed.expires_at <= client.ends[renewed.lease]


async def test_a_permit_that_heliosd_did_not_write_is_a_conflict(autojump_clock: MockClock) -> None:
    etcd = Etcd()
    for value in (b"{}", b'{"id":"\xff"}'):
        etcd.put(LAYOUT.permit, value)
        with pytest.raises(Conflict, match="delete the key"):
            await permits_of(ModelClient(etcd, ClusterIdentity())).current()
