"""What the tests of the etcd client share."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.requests import prefix_end
from heliosd.config.model import EtcdConfig

from .etcd_cluster import EtcdCluster

PREFIX = b"/heliosd/"
END = prefix_end(PREFIX)
KEY = PREFIX + b"a"

T = TypeVar("T")


def url(cluster: EtcdCluster, server: int) -> str:
    return cluster.members[server].client_url


@asynccontextmanager
async def client_of(cluster: EtcdCluster, **changes: Any) -> AsyncGenerator[EtcdClient, None]:
    """A client that knows all members, and asks the first of them first."""
    settings = {"endpoints": tuple(member.client_url for member in cluster.members)} | changes
    with trio.fail_after(60):
        async with EtcdClient(EtcdConfig(**settings), random.Random(1)) as client:
            yield client


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Call what blocks in a thread."""
    return await trio.to_thread.run_sync(call, *arguments)


def keep_from_leading(cluster: EtcdCluster, server: int) -> None:
    """The member at that place does not lead afterwards."""
    if cluster.leader() == server:
        other = cluster.status((server + 1) % len(cluster.members))
        assert other is not None
        cluster.ask(server, "/v3/maintenance/transfer-leadership", {"targetID": other["header"]["member_id"]})
        assert cluster.leader() != server
