"""Leases of etcd that are of no use any more."""

from __future__ import annotations

from contextlib import suppress

import trio

from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.errors import EtcdError

TAKE_BACK_SECONDS = 1.0


async def take_back(client: EtcdClient, lease: str) -> None:
    """End a lease, and its keys with it; "" is none.

    Also for a task that is being cancelled: it takes a second at most. Raises nothing: a lease that could not be
    ended ends by itself.
    """
    if lease:
        with trio.move_on_after(TAKE_BACK_SECONDS, shield=True), suppress(EtcdError):
            await client.lease_revoke(lease)
