"""Leases: this heliosd's presence, and what the log's events stand under.

A presence ends ten seconds after its heliosd did. Whoever is present and finds no observer becomes it, under the
same lease: the observer tells of health, which each sees in its own way, and promotes learners.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from heliosd import __version__
from heliosd.clock import Instant, rfc3339
from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.errors import EtcdError, EtcdLearnerBehind, EtcdLeaseGone, EtcdRefused
from heliosd.cluster.etcd.client.requests import MAX_LEASE_SECONDS, absent, delete, put

from .faults import Faults
from .keys import KeyLayout
from .mirror import Mirror, PresentObserver

PRESENCE_SECONDS = 10
ALIVE_SECONDS = 3.0
PROMOTE_SECONDS = 1.0
LOG_LEASE_SECONDS = 3600.0
"""Events and dedupe keys of so long share one lease."""
CLEANUP_SECONDS = 1.0


class LogLease:
    """The lease under which this node writes events: a new one each hour, so that they end with what is kept."""

    def __init__(self, client: EtcdClient, max_age: float) -> None:
        self._client = client
        self._seconds = min(MAX_LEASE_SECONDS, int(max_age + LOG_LEASE_SECONDS) + 1)
        self._lease = ""
        self._until = 0.0

    async def current(self) -> str:
        """A lease that ends no sooner than an event written now may be forgotten. Raises `EtcdError`."""
        if not self._lease or trio.current_time() >= self._until:
            lease = await self._client.lease_grant(self._seconds)
            self._lease, self._until = lease.id, trio.current_time() + LOG_LEASE_SECONDS
        return self._lease

    def gone(self) -> None:
        """etcd knows no such lease any more: somebody revoked it, or the cluster is another one."""
        self._lease = ""


class Presence:
    """Keeps this node's keys under `observers/` and, where it is its turn, `observer`."""

    def __init__(
        self,
        client: EtcdClient,
        layout: KeyLayout,
        mirror: Mirror,
        *,
        node_id: str,
        now: Callable[[], Instant],
        faults: Faults,
    ) -> None:
        self._client = client
        self._layout = layout
        self._mirror = mirror
        self._node = node_id
        self._faults = faults
        self._said = PresentObserver(id=node_id, version=__version__, since=rfc3339(now().wall))
        self._lease = ""
        self._sooner = trio.Event()

    def hurry(self) -> None:
        """There is no observer any more, or this node's own key is gone."""
        self._sooner.set()

    async def run(self) -> None:
        """Until cancelled; then the keys are given back."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._promote_learners)
                while True:
                    self._sooner = trio.Event()
                    try:
                        await self._beat()
                    except EtcdError as error:
                        self._faults.add("presence", error)
                    else:
                        self._faults.clear("presence")
                    with trio.move_on_after(ALIVE_SECONDS):
                        await self._sooner.wait()
        finally:
            with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                await self._leave()

    async def _beat(self) -> None:
        if self._lease and (await self._client.lease_keepalive(self._lease)).seconds <= 0:
            self._lease = ""
        if not self._lease:
            self._lease = (await self._client.lease_grant(PRESENCE_SECONDS)).id
            await self._show()
        elif self._mirror.cluster_id and self._node not in self._mirror.observers:
            await self._show()
        if self._mirror.cluster_id and not self._mirror.observer:
            key = self._layout.observer
            await self._client.txn([absent(key)], [put(key, self._node.encode(), self._lease)], [])

    async def _show(self) -> None:
        try:
            said = msgspec.json.encode(self._said)
            await self._client.txn([], [put(self._layout.present(self._node), said, self._lease)], [])
        except EtcdLeaseGone:
            self._lease = ""
            raise

    async def _leave(self) -> None:
        if self._lease:
            try:
                await self._client.lease_revoke(self._lease)
            except EtcdError:
                return  # it ends by itself

    async def _promote_learners(self) -> None:
        """A learner that heliosd added becomes a voter once it is in step."""
        while True:
            await trio.sleep(PROMOTE_SECONDS)
            failed = False
            for member in list(self._mirror.learners) if self._mirror.observer == self._node else ():
                try:
                    await self._promote(member)
                except EtcdError as error:
                    failed = True
                    self._faults.add("promoting learners", error)
            if not failed:
                self._faults.clear("promoting learners")

    async def _promote(self, member: str) -> None:
        try:
            await self._client.member_promote(member)
        except EtcdLearnerBehind:
            return
        except EtcdRefused as refused:
            gone = "not found" in refused.reason or "not a learner" in refused.reason
            if not gone and "can only promote a learner member" not in refused.reason:
                raise
        await self._client.txn([], [delete(self._layout.learner(member))], [])
