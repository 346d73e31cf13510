"""Revoked tokens that etcd has not, or has no longer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import trio
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.etcd.client.errors import EtcdDenied, EtcdNoLeader
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.requests import Compare, Op
from heliosd.cluster.etcd.client.responses import Lease, RangeResult, TxnResult
from heliosd.cluster.etcd.context import EtcdContext
from heliosd.cluster.etcd.faults import Faults
from heliosd.cluster.etcd.mirror import Mirror
from heliosd.cluster.etcd.revocations import Revocations
from heliosd.cluster.etcd.watcher import Watcher
from heliosd.cluster.subscribers import Subscribers
from tests.support.etcd_model import LAYOUT, Etcd
from tests.support.etcd_model_client import URL, ModelClient

START = 1.8e9
"""Unix seconds."""
ENDS = START + 3600


class Node(ModelClient):
    """One heliosd's client and tasks, with what it has stored."""

    def __init__(self, etcd: Etcd, stored: dict[str, float]) -> None:
        super().__init__(etcd, ClusterIdentity())
        self.cut_off = self.denied = False
        self.leases_out: set[str] = set()
        self.mirror = Mirror(LAYOUT, 100)
        context = SimpleNamespace(
            client=self,
            layout=LAYOUT,
            mirror=self.mirror,
            now=lambda: Instant(START + trio.current_time(), trio.current_time()),
            faults=Faults(),
            subscribers=Subscribers(10),
        )
        self.watcher = Watcher(cast(EtcdContext, context), lambda _heard: None)
        self.revocations = Revocations(cast(EtcdContext, context), self.watcher, stored)

    def _reach(self) -> None:
        if self.cut_off:
            raise EtcdNoLeader(URL, "no leader")

    async def range(self, key: bytes, end: bytes | None = None, **options: object) -> RangeResult:
        self._reach()
        return await super().range(key, end, **options)

    async def lease_grant(self, seconds: int) -> Lease:
        self._reach()
        lease = await super().lease_grant(seconds)
        self.leases_out.add(lease.id)
        return lease

    async def lease_revoke(self, lease: str) -> None:
        await super().lease_revoke(lease)
        self.leases_out.discard(lease)

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        if self.denied:
            raise EtcdDenied(URL, "permission denied", 7)
        return await super().txn(compares, then, otherwise)


@asynccontextmanager
async def running(etcd: Etcd, stored: dict[str, float], *, cut_off: bool = False) -> AsyncGenerator[Node]:
    node = Node(etcd, stored)
    node.cut_off = cut_off
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.watcher.run)
        nursery.start_soon(node.revocations.run)
        yield node
        nursery.cancel_scope.cancel()


async def test_a_logout_that_etcd_had_not_taken_before_a_restart_is_shared_after_it(
    autojump_clock: MockClock,
) -> None:
    etcd, stored = Etcd(), {"": START - 60, "ended": START - 1}
    async with running(etcd, stored, cut_off=True) as node:
        stored["gone"] = ENDS
        await node.revocations.share("gone", ENDS)
    async with running(etcd, stored, cut_off=True) as node, running(etcd, {}) as other:
        await trio.sleep(5)
        node.cut_off = False
        with trio.fail_after(10):
            await other.watcher.changed(lambda: "gone" in other.mirror.revoked)
        await trio.sleep(5)
        assert other.mirror.revoked == {"gone": ENDS}


async def test_a_cluster_that_was_restored_from_a_backup_hears_again_what_is_revoked(
    autojump_clock: MockClock,
) -> None:
    etcd, stored = Etcd(), {"before": ENDS}
    async with running(etcd, stored) as node, running(etcd, {}) as other:
        stored["since"] = ENDS
        await node.revocations.share("since", ENDS)
        with trio.fail_after(10):
            await other.watcher.changed(lambda: other.mirror.revoked == stored)
        restored = Etcd()
        for each in (node, other):
            each.etcd = restored
            each.watcher.reload()
        with trio.fail_after(10):
            await other.watcher.changed(lambda: other.mirror.readings == 2 and other.mirror.revoked == stored)


async def test_a_logout_that_etcd_denies_for_long_leaves_no_leases_behind(autojump_clock: MockClock) -> None:
    etcd = Etcd()
    async with running(etcd, {}) as node:
        node.denied = True
        await node.revocations.share("gone", ENDS)
        await trio.sleep(60)
        assert len(node.leases_out) <= 1
        node.denied = False
        with trio.fail_after(10):
            await node.watcher.changed(lambda: "gone" in node.mirror.revoked)
