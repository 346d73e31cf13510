"""Revoked tokens, shared by all heliosd of a cluster."""

from __future__ import annotations

from math import ceil
from random import SystemRandom

import msgspec
import trio

from heliosd.backoff import Backoff
from heliosd.cluster.etcd.client.errors import EtcdError
from heliosd.cluster.etcd.client.requests import MAX_LEASE_SECONDS, put

from .context import EtcdContext
from .mirror import Revoked

SHARED_SECONDS = 1.0
"""How long a logout waits until the revocation is in etcd. After that it is retried in the background."""
RETRY_SECONDS = 1.0


class Revocations:
    """`share` may be called by any task; `run` writes, and retries until etcd has it."""

    def __init__(self, context: EtcdContext) -> None:
        self._etcd = context
        self._waiting: dict[str, float] = {}
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
        backoff = Backoff(SystemRandom(), first=RETRY_SECONDS, longest=RETRY_SECONDS)
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            for jti, expires_at in list(self._waiting.items()):
                try:
                    await self._write(jti, expires_at)
                except EtcdError as error:
                    self._etcd.faults.add("revocations", error)
                    await trio.sleep(backoff.seconds())
                    self._filled.set()
                    break
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
        await self._etcd.client.txn([], [put(self._etcd.layout.revoked(jti), revoked, lease.id)], [])
