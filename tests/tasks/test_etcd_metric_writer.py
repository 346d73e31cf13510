"""Metric commands while the cluster's event log is away: all keys of heliosd were deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from heliosd.cluster.etcd.event_log import SeenHead, begin
from heliosd.cluster.etcd.metric_writer import MetricWriter
from heliosd.cluster.etcd.watcher import Watcher
from heliosd.cluster.metric_commands import RegisterMetric
from heliosd.errors import NoLeader
from tests.rules.test_etcd_view import CLUSTER, led_by_b
from tests.support.etcd_model import LAYOUT, Etcd

from .test_etcd_polls import Members, context_of


async def test_a_command_is_refused_where_a_transaction_has_shown_that_the_log_is_gone(
    autojump_clock: MockClock,
) -> None:
    etcd = Etcd()
    draft = begin(LAYOUT, SeenHead(), cluster_id=CLUSTER, birth="0" * 12)
    etcd.txn(draft.compares, draft.then, draft.otherwise)
    context = replace(context_of(Members()), view=led_by_b().view)
    context.mirror.load(etcd.read())
    writer = MetricWriter(context, Watcher(context, lambda _: None))
    writer._seen = replace(
        context.mirror.seen_metrics(), head=SeenHead(), revision=context.mirror.revision + 1
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        with pytest.raises(NoLeader):
            await writer.propose(RegisterMetric(name="hits", type="counter", at=1.0))
        nursery.cancel_scope.cancel()
