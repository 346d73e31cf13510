"""What this node keeps on its own disk: its uptime, its snapshots, how far it has applied the cluster's log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec
import trio

from heliosd.clock import Instant
from heliosd.cluster.uptime import UptimeTracker
from heliosd.errors import StoreFull
from heliosd.store.changes import Change, Save, Saved, ValueSet
from heliosd.store.deferred_changes import DeferredChanges

from .mirror import KnownState, Mirror

log = logging.getLogger(__name__)

KNOWN = "etcd/known"
"""The name of the stored `KnownState`, by which a cluster that was set back meanwhile is recognised."""
ALIVE_SECONDS = 10.0
RETRY_SECONDS = 1.0


class LocalRecords:
    """`note` stores soon, in the background; `store` returns once it is on disk."""

    def __init__(self, save: Save, uptime: UptimeTracker, mirror: Mirror, now: Callable[[], Instant]) -> None:
        self._deferred = DeferredChanges(save)
        self._uptime = uptime
        self._mirror = mirror
        self._now = now
        self._noted = trio.Event()
        self._refused = False
        self._remembering = False
        self.closed = False
        """The session has ended: it gets no more changes."""

    @property
    def unsaved(self) -> str | None:
        """Why this node should not count as ready yet: killed now, it would not know its own cluster at a start
        with endpoints of two. None: the id is on disk, or the disk is full."""
        return "the cluster's id is not on disk yet" if self._remembering else None

    def note(self, changes: Sequence[Change]) -> None:
        """Store these soon, in their order."""
        self._deferred.add(changes)
        self._noted.set()

    async def store(self, changes: Sequence[Change]) -> None:
        """Store these after those that wait. Raises `StoreFull`; then all of them wait."""
        await self._deferred.store(changes)

    async def reset(self, changes: Sequence[Change], reset: Callable[[], Sequence[Change]]) -> None:
        """As `DeferredChanges.reset`."""
        await self._deferred.reset(changes, reset)

    def remember(self) -> None:
        """Store which cluster this is, and how far it is applied, without waiting for `ALIVE_SECONDS`."""
        self.note(self._known())
        self._remembering = True

    async def run(self) -> None:
        """Until cancelled: store what was noted, and every `ALIVE_SECONDS` that this node runs. What cannot be
        stored waits."""
        while True:
            with trio.move_on_after(ALIVE_SECONDS) as quiet:
                await self._noted.wait()
            self._noted = trio.Event()
            if self.closed:
                continue
            alive = [*self._uptime.alive(self._now()), *self._known()] if quiet.cancelled_caught else []
            remembering = self._remembering
            try:
                await self.store(alive)
            except StoreFull as full:
                self._remembering = False
                if not self._refused:
                    log.error("the store refuses the records of uptime and snapshots: %s", full)
                self._refused = True
                await trio.sleep(RETRY_SECONDS)
                self._noted.set()
            else:
                self._refused = False
                if remembering:
                    self._remembering = False

    async def close(self) -> None:
        """End the session."""
        self.closed = True
        try:
            await self.store([*self._uptime.stop("graceful_shutdown", self._now()), *self._known()])
        except StoreFull as full:
            log.warning(
                "the end of this session could not be stored, the next start counts a crash: %s", full
            )

    def _known(self) -> list[Change]:
        if not self._mirror.cluster_id:
            return []
        return [ValueSet(KNOWN, msgspec.json.encode(self._mirror.known))]


def known_before(saved: Saved) -> KnownState | None:
    """What the last session stored; None if there was none."""
    body = saved.values.get(KNOWN)
    return None if body is None else msgspec.json.decode(body, type=KnownState)
