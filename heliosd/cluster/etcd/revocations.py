"""Revoked tokens, shared by all heliosd of a cluster.

A node shares what it revokes, and after each reading of the whole prefix all that it has stored and the cluster has
not: etcd may have been away until a restart, or been restored from a backup.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from random import SystemRandom

import msgspec
import trio

from heliosd.backoff import Backoff
from heliosd.cluster.etcd.client.errors import EtcdError
from heliosd.cluster.etcd.client.requests import MAX_LEASE_SECONDS, put

from .context import EtcdContext
from .leases import take_back
from .mirror import Revoked
from .watcher import Watcher

SHARED_SECONDS = 1.0
"""How long a logout waits until the revocation is in etcd. After that it is retried in the background."""
RETRY_SECONDS = 1.0


class Revocations:
    """`share` may be called by any task; `run` writes, and retries until etcd has it.

    `stored` is what this node has stored, at any moment (`jti` -> expiry)."""

    def __init__(self, context: EtcdContext, watcher: Watcher, stored: Mapping[str, float]) -> None:
        self._etcd = context
        self._watcher = watcher
        self._stored = stored
        self._waiting: dict[str, float] = {}
        self._compared = 0
        """The reading that was compared last."""
        self._filled = trio.Event()
        self._shared = trio.Event()

    async def share(self, jti: str, expires_at: float) -> None:
        """Returns once it is written, or after `SHARED_SECONDS`."""
        self._waiting[jti] = expires_at
        self._filled.set()
        with trio.move_on_after(SHARED_SECONDS):
            while jti in self._waiting:
                await self._shared.wait()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_all)
            nursery.start_soon(self._catch_up)

    async def _catch_up(self) -> None:
        mirror = self._etcd.mirror
        while True:
            await self._watcher.changed(lambda: mirror.readings != self._compared)
            self._compared, now = mirror.readings, self._etcd.now().wall
            for jti, expires_at in self._stored.items():
                # The one of all tokens up to an expiry ("") is of tokens that have ended.
                if jti and expires_at > now and jti not in mirror.revoked:
                    self._waiting.setdefault(jti, expires_at)
            self._filled.set()

    async def _write_all(self) -> None:
        backoff = Backoff(SystemRandom(), first=RETRY_SECONDS, longest=RETRY_SECONDS)
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            while self._waiting:
                # The newest first: a logout does not wait for those that are shared again.
                jti, expires_at = next(reversed(self._waiting.items()))
                try:
                    await self._write(jti, expires_at)
                except EtcdError as error:
                    self._etcd.faults.add("revocations", error)
                    await trio.sleep(backoff.seconds())
                    continue
                self._etcd.faults.clear("revocations")
                del self._waiting[jti]
                self._shared.set()
                self._shared = trio.Event()

    async def _write(self, jti: str, expires_at: float) -> None:
        left = ceil(expires_at - self._etcd.now().wall)
        if left <= 0 or jti in self._etcd.mirror.revoked:
            return
        lease = await self._etcd.client.lease_grant(min(left, MAX_LEASE_SECONDS))
        revoked = msgspec.json.encode(Revoked(expires_at=expires_at))
        try:
            await self._etcd.client.txn([], [put(self._etcd.layout.revoked(jti), revoked, lease.id)], [])
        except EtcdError:
            # Another one is granted with the next attempt; this one would last as long as the token.
            await take_back(self._etcd.client, lease.id)
            raise
