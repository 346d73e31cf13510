"""Metric commands while the cluster's event log goes away, is set back, or is shared with other programs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.requests import Compare, Op
from heliosd.cluster.etcd.client.responses import Lease, TxnResult
from heliosd.cluster.etcd.context import EtcdContext
from heliosd.cluster.etcd.event_log import SeenHead, begin, read_head
from heliosd.cluster.etcd.metric_writer import LOOK_SECONDS, PATIENCE, SEEN_SECONDS, MetricWriter
from heliosd.cluster.etcd.watcher import Watcher
from heliosd.cluster.idempotency import WriteKey
from heliosd.cluster.metric_commands import RegisterMetric, ResetMetrics
from heliosd.errors import NoLeader
from tests.rules.test_etcd_view import CLUSTER, led_by_b
from tests.support.etcd_model import LAYOUT, Etcd
from tests.support.etcd_model_client import ModelClient

from .test_etcd_polls import context_of

HITS = RegisterMetric(name="hits", type="counter", at=1.0)
MISSES = replace(HITS, name="misses")
MANY_TRANSACTIONS = 1000


class SlowLeases(ModelClient):
    """The first lease is granted once `meanwhile` has happened, and the transactions are counted."""

    def __init__(self, etcd: Etcd) -> None:
        super().__init__(etcd, ClusterIdentity(CLUSTER))
        self.meanwhile: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.transactions = 0

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        self.transactions += 1
        assert self.transactions < MANY_TRANSACTIONS  # no time passes while one follows the other
        return await super().txn(compares, then, otherwise)

    async def lease_grant(self, seconds: int) -> Lease:
        meanwhile, self.meanwhile = self.meanwhile, trio.lowlevel.checkpoint
        await meanwhile()
        return await super().lease_grant(seconds)


def beget(etcd: Etcd, birth: str) -> None:
    """Begin a log."""
    seen = read_head(etcd.under(LAYOUT.head, LAYOUT.head + b"\0"))
    draft = begin(LAYOUT, seen, cluster_id=CLUSTER, birth=birth)
    assert etcd.txn(draft.compares, draft.then, draft.otherwise).succeeded


class Node:
    """What writes metrics, and follows the keys, of one heliosd."""

    def __init__(self) -> None:
        self.etcd = Etcd()
        beget(self.etcd, "0" * 12)
        self.client = SlowLeases(self.etcd)
        self.context: EtcdContext = replace(context_of(self.client), view=led_by_b().view)
        self.context.mirror.load(self.etcd.read())
        self.watcher = Watcher(self.context, lambda _: None)
        self.writer = MetricWriter(self.context, self.watcher)

    def set_back(self, backup: Etcd) -> None:
        self.etcd = self.client.etcd = backup
        self.watcher.reload()


@pytest.fixture
def node(autojump_clock: MockClock, nursery: trio.Nursery) -> Node:
    node = Node()
    nursery.start_soon(node.watcher.run)
    nursery.start_soon(node.writer.run)
    return node


async def test_a_command_is_refused_where_a_transaction_has_shown_that_the_log_is_gone(
    autojump_clock: MockClock, node: Node
) -> None:
    await wait_all_tasks_blocked()
    mirror = node.context.mirror
    node.writer._seen = replace(mirror.seen_metrics(), head=SeenHead(), revision=mirror.revision + 1)
    node.writer._reading = mirror.readings
    with pytest.raises(NoLeader):
        await node.writer.propose(HITS)


async def test_a_command_is_refused_where_the_log_goes_while_a_lease_is_granted(
    autojump_clock: MockClock, node: Node
) -> None:
    async def lose_the_log() -> None:
        node.etcd.delete(LAYOUT.prefix, LAYOUT.end)
        node.context.mirror.load(node.etcd.read())

    node.client.meanwhile = lose_the_log
    with pytest.raises(NoLeader):
        await node.writer.propose(HITS)
    beget(node.etcd, "1" * 12)
    await node.watcher.reach(node.etcd.revision)
    await node.writer.propose(HITS)


async def test_no_number_of_a_log_that_is_set_back_while_a_lease_is_granted_is_used_again(
    autojump_clock: MockClock, node: Node
) -> None:
    async def set_back() -> None:
        backup = node.etcd.backup()
        node.etcd.put(LAYOUT.observer, b"n")
        await node.watcher.reach(node.etcd.revision)
        node.set_back(backup)
        await node.watcher.changed(lambda: node.context.mirror.needs_birth)

    node.client.meanwhile = set_back
    with pytest.raises(NoLeader):
        await node.writer.propose(HITS)
    assert LAYOUT.event(1) not in node.etcd.kvs


async def test_a_command_that_was_refused_while_a_lease_is_granted_is_not_written(
    autojump_clock: MockClock, node: Node
) -> None:
    node.client.meanwhile = partial(trio.sleep, PATIENCE + 1)
    with pytest.raises(NoLeader):
        await node.writer.propose(HITS)
    await node.writer.propose(RegisterMetric(name="after", type="counter", at=1.0))
    assert LAYOUT.metric("hits") not in node.etcd.kvs


async def test_after_a_set_back_a_repeated_key_is_carried_out_again(
    autojump_clock: MockClock, node: Node
) -> None:
    backup, key = node.etcd.backup(), WriteKey("k", "r")
    await node.writer.propose(HITS, key)
    node.set_back(backup)
    await node.watcher.changed(lambda: node.context.mirror.needs_birth)
    beget(node.etcd, "1" * 12)
    await node.watcher.changed(lambda: not node.context.mirror.needs_birth)
    await node.writer.propose(HITS, key)
    assert LAYOUT.metric("hits") in node.etcd.kvs


async def test_a_cluster_that_was_set_back_is_not_flooded_before_that_is_noticed(
    autojump_clock: MockClock, node: Node
) -> None:
    backup = node.etcd.backup()
    await node.writer.propose(HITS)
    node.client.etcd = backup  # the watch goes on where it was
    before = node.client.transactions
    with pytest.raises(NoLeader):
        await node.writer.propose(MISSES)
    assert node.client.transactions - before <= PATIENCE / LOOK_SECONDS + 1


async def test_a_metric_whose_value_nobody_can_read_is_overwritten(
    autojump_clock: MockClock, node: Node
) -> None:
    await wait_all_tasks_blocked()
    node.etcd.put(LAYOUT.metric("hits"), b'{"help":"\xff"}')
    node.etcd.put(LAYOUT.head, node.etcd.value(LAYOUT.head))  # so that all is read again
    await node.writer.propose(HITS)
    assert b"hits" in node.etcd.value(LAYOUT.metric("hits"))


async def test_a_reset_of_nothing_does_not_wait_for_a_revision_of_other_programs(
    autojump_clock: MockClock, node: Node
) -> None:
    await wait_all_tasks_blocked()  # everything is read, and watched from here on
    node.etcd.put(b"/of-another-program", b"x")
    before = trio.current_time()
    await node.writer.propose(ResetMetrics(at=1.0))
    assert trio.current_time() - before <= SEEN_SECONDS
