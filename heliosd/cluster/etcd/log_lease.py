"""The lease under which this node writes events and their dedupe keys."""

from __future__ import annotations

from collections.abc import Callable

from heliosd.clock import Instant
from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.requests import MAX_LEASE_SECONDS

RENEW_SECONDS = 3600.0
"""A lease is used for so long; then a new one is granted."""


class LogLease:
    """A new lease each hour, so that events end `max_age` to `max_age` + 1 h after they were written, or
    after the last election: a new leader of etcd gives every lease its whole time again."""

    def __init__(self, client: EtcdClient, max_age: float, now: Callable[[], Instant]) -> None:
        self._client = client
        self._now = now
        self._seconds = min(MAX_LEASE_SECONDS, int(max_age + RENEW_SECONDS) + 1)
        self._lease = ""
        self._granted: Instant | None = None

    async def current(self) -> str:
        """A lease that lasts at least as long as an event written now is kept. Raises `EtcdError`."""
        now, granted = self._now(), self._granted
        # By both clocks: the monotonic one stands still while the machine is suspended, and etcd's does not.
        if granted is None or max(now.mono - granted.mono, now.wall - granted.wall) >= RENEW_SECONDS:
            lease = await self._client.lease_grant(self._seconds)
            self._lease, self._granted = lease.id, now
        return self._lease

    def gone(self) -> None:
        """etcd does not know the lease any more: grant a new one next time."""
        self._granted = None
