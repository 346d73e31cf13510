"""The lease of events, by both clocks."""

from __future__ import annotations

from typing import cast

import trio
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.log_lease import RENEW_SECONDS, LogLease
from tests.support.etcd_model import Etcd
from tests.support.etcd_model_client import ModelClient


async def test_a_lease_is_used_for_an_hour_of_either_clock(autojump_clock: MockClock) -> None:
    suspended = 0.0
    lease = LogLease(
        cast(EtcdClient, ModelClient(Etcd(), ClusterIdentity())),
        60.0,
        lambda: Instant(1.8e9 + suspended + trio.current_time(), trio.current_time()),
    )
    first = await lease.current()
    await trio.sleep(RENEW_SECONDS - 1)
    assert await lease.current() == first
    await trio.sleep(2)
    second = await lease.current()
    assert second != first
    suspended = RENEW_SECONDS
    third = await lease.current()
    assert third not in {first, second}
    lease.gone()
    assert await lease.current() != third
