"""Following everything under the prefix: one full reading, then one watch, at whichever member answers.

A watch is silent while nothing changes, so its state is judged by the member's polls: a member that does not answer
them, or that stays behind the leader, is left for another one. The watch goes on from the next revision, so nothing
is missed or applied twice, whichever member serves it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import groupby
from random import SystemRandom

import trio
from msgspec.structs import replace

from heliosd.backoff import Backoff
from heliosd.cluster.etcd.client.errors import EtcdCompacted, EtcdError, EtcdRefused, EtcdUnavailable
from heliosd.cluster.etcd.client.responses import RangeResult, WatchBatch

from .context import EtcdContext
from .updates import MirrorUpdate

log = logging.getLogger(__name__)

PAGE = 1000
"""Keys in one answer of the full reading."""
FIRST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 1.0
STEADY_SECONDS = 1.0
"""A watch that lasted so long counts as a success."""


class Watcher:
    """Keeps the mirror up to date. `heard` gets every update, in order."""

    def __init__(self, context: EtcdContext, heard: Callable[[MirrorUpdate], None]) -> None:
        self._etcd = context
        self._heard = heard
        self._stale = True
        self._scope = trio.CancelScope()
        self._endpoint = ""
        self._news = trio.Event()
        self._retry = trio.Event()

    @property
    def endpoint(self) -> str:
        """The URL of the watched member; "" while none is watched."""
        return self._endpoint

    def leave(self, reason: str) -> None:
        """Go on at another member: the watched one is silent or behind. Once is enough."""
        if self._endpoint and not self._scope.cancel_called:
            self._etcd.client.avoid(self._endpoint, reason)
            log.info("etcd: leaving %s: %s", self._endpoint, reason)
            self._scope.cancel()

    def leave_if(self, unfit: Callable[[str], str]) -> None:
        """Leave the watched member if `unfit` of its URL says why; "": it does not."""
        reason = unfit(self._endpoint) if self._endpoint else ""
        if reason:
            self.leave(reason)

    def reload(self) -> None:
        """Read everything again: the cluster that answers now is not the one that was read."""
        self._stale = True
        self._scope.cancel()

    def retry_now(self) -> None:
        """There is a leader again: create a watch that could not be created without one, at once."""
        if not self._endpoint:
            self._retry.set()
            self._scope.cancel()

    async def reach(self, revision: int) -> None:
        """Return once everything up to `revision`, at which a key under the prefix changed, is applied."""
        await self.changed(lambda: self._etcd.mirror.revision >= revision)

    async def changed(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()`; it is evaluated after every update."""
        while not holds():
            await self._news.wait()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(SystemRandom(), first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
        while True:
            began = trio.current_time()
            self._retry = trio.Event()
            try:
                with trio.CancelScope() as self._scope:
                    if self._stale:
                        await self._load()
                    await self._watch()
            except EtcdCompacted:
                self._stale = True
            except EtcdError as error:
                # A broken watch is resumed elsewhere in a moment; only if that fails is it a fault.
                if not self._endpoint or isinstance(error, EtcdRefused):
                    self._etcd.faults.add("reading", error)
            self._endpoint = ""
            if trio.current_time() - began > STEADY_SECONDS:
                backoff.reset()
                await trio.lowlevel.checkpoint()
            else:
                with trio.move_on_after(backoff.seconds()):
                    await self._retry.wait()

    async def _load(self) -> None:
        """Read all pages as of one revision, by a linearizable read: a member that is cut off cannot answer it."""
        key, revision = self._etcd.layout.prefix, 0
        pages: list[RangeResult] = []
        while True:
            page = await self._etcd.client.range(key, self._etcd.layout.end, limit=PAGE, revision=revision)
            pages.append(page)
            revision = revision or page.header.revision
            if not page.more:
                break
            key = page.kvs[-1].key + b"\0"
        self._stale = False
        self._hear(self._etcd.mirror.load(pages))
        await self._etcd.subscribers.room()

    async def _watch(self) -> None:
        start = self._etcd.mirror.revision + 1
        async with self._etcd.client.watch(self._etcd.layout.prefix, self._etcd.layout.end, start) as watch:
            self._endpoint = watch.endpoint
            async for batch in watch:
                if batch.compact_revision:
                    self._stale = True
                    return
                if batch.header.cluster_id != self._etcd.mirror.cluster_id:
                    self._stale = True
                    return
                self._etcd.faults.clear("reading")
                for part in _by_revision(batch):
                    if self._etcd.mirror.is_outdated_by(part):
                        self._stale = True
                        return
                    self._hear(self._etcd.mirror.apply(part))
                    await self._etcd.subscribers.room()
        raise EtcdUnavailable(self._endpoint, "the watch ended")

    def _hear(self, news: MirrorUpdate) -> None:
        self._heard(news)
        self._news.set()
        self._news = trio.Event()


def _by_revision(batch: WatchBatch) -> Iterator[WatchBatch]:
    """The batch cut into its revisions: etcd may send a thousand at once, and each may bring events."""
    for _, group in groupby(batch.events, key=lambda event: event.kv.mod_revision):
        yield replace(batch, events=tuple(group))
