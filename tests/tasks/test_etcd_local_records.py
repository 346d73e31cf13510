"""What a node beside etcd keeps on its own disk, and when it may count as ready."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.etcd.keys import KeyLayout
from heliosd.cluster.etcd.local_records import LocalRecords
from heliosd.cluster.etcd.mirror import Mirror
from heliosd.cluster.uptime import UptimeTracker
from heliosd.store.changes import Saved
from tests.support.simulated_harness import MemoryStore


def now() -> Instant:
    return Instant(1_700_000_000 + trio.current_time(), trio.current_time())


@pytest.mark.parametrize("full", [False, True])
async def test_a_node_is_not_ready_before_its_disk_has_taken_or_refused_the_clusters_id(
    autojump_clock: MockClock, full: bool
) -> None:
    store, mirror = MemoryStore(seconds=2.0), Mirror(KeyLayout("/heliosd/"), 10)
    store.full = full
    records = LocalRecords(store.save, UptimeTracker("n1", Saved()), mirror, now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(records.run)
        assert records.unsaved is None
        mirror.cluster_id = "c1"
        records.remember()
        await trio.sleep(1.0)
        assert records.unsaved == "the cluster's id is not on disk yet"
        await trio.sleep(1.5)
        assert records.unsaved is None
        assert bool(store.saves) is not full
        nursery.cancel_scope.cancel()
