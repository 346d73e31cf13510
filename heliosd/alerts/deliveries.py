"""Alerts that are due and not sent yet: stored, so that none is lost over a restart."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import trio
from msgspec import structs

from heliosd.errors import StoreFull
from heliosd.store.changes import Save, Saved, ValueSet

from .book import Notification
from .counters import AlertCounters

WAITING = "alerts/waiting/"
"""Prefix of the stored values; a number follows, in the order in which they became due."""
MAX_WAITING = 10_000
"""Beyond this the oldest ones are dropped."""

log = logging.getLogger("heliosd")


@dataclass(slots=True, eq=False)
class Waiting:
    """One alert in its queue."""

    key: str
    """The name of the stored value."""
    notification: Notification
    tried_since: float | None = None
    """When this process tried to send it first, on Trio's clock."""


class Deliveries:
    """The queues of all alerts."""

    def __init__(self, saved: Saved, save: Save, counters: AlertCounters) -> None:
        self._save = save
        self._counters = counters
        self._queues: dict[str, deque[Waiting]] = {}
        self._news = trio.Event()
        self._unsaved: dict[str, ValueSet] = {}
        # Of two calls at once the disk may take what is newer and refuse what is older.
        self._order = trio.Lock()
        self._number = 0
        for key in sorted(key for key in saved.values if key.startswith(WAITING)):
            self._number = int(key.removeprefix(WAITING))
            stored = msgspec.json.decode(saved.values[key], type=Notification)
            # It may have been sent just before the restart.
            self._append(Waiting(key, structs.replace(stored, repeated=True)))

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def unsaved(self) -> bool:
        """Whether the disk refused something that waits for the next `put`."""
        return bool(self._unsaved)

    async def put(self, fired: Sequence[Notification], also: ValueSet | None = None) -> None:
        """Store these, and `also` in the same transaction; then they can be taken. When the disk refuses, they can
        be taken all the same: a full disk is when alerts are needed."""
        added = []
        for notification in fired:
            self._number += 1
            waiting = Waiting(f"{WAITING}{self._number:016d}", notification)
            self._unsaved[waiting.key] = ValueSet(waiting.key, msgspec.json.encode(notification))
            added.append(waiting)
        if also is not None:
            self._unsaved[also.name] = also
        await self._store()
        for waiting in added:
            self._append(waiting)
        while len(self) > MAX_WAITING:
            longest = max(self._queues.values(), key=len)
            await self._drop(longest[0], "too_many")

    async def next(self, alert: str) -> Waiting:
        """The oldest one of this alert, when there is one. It stays until it is removed."""
        while not self._queues.get(alert):
            await self._news.wait()
        return self._queues[alert][0]

    def retry_later(self, waiting: Waiting) -> None:
        """It was not taken: the others of its alert are tried before it is again."""
        waiting.notification = structs.replace(waiting.notification, repeated=True)
        queue = self._queues.get(waiting.notification.alert)
        if queue and queue[0] is waiting:
            queue.rotate(-1)

    async def remove(self, waiting: Waiting, dropped: str = "") -> None:
        """It was sent, or is dropped for this reason. No effect if it is not there any more."""
        if waiting in self._queues.get(waiting.notification.alert, ()):
            await self._drop(waiting, dropped)

    async def keep_only(self, alerts: Iterable[str]) -> None:
        """Drop what waits for alerts that are not configured any more."""
        for name in self._queues.keys() - set(alerts):
            while queue := self._queues[name]:
                await self._drop(queue[0], "not_configured")
            del self._queues[name]
            self._counters.waiting.pop(name, None)

    def _append(self, waiting: Waiting) -> None:
        alert = waiting.notification.alert
        self._queues.setdefault(alert, deque()).append(waiting)
        self._counters.waiting[alert] = len(self._queues[alert])
        self._news.set()
        self._news = trio.Event()

    async def _drop(self, waiting: Waiting, reason: str) -> None:
        alert = waiting.notification.alert
        self._queues[alert].remove(waiting)
        self._counters.waiting[alert] = len(self._queues[alert])
        if reason:
            self._counters.dropped[reason] += 1
            log.error("alert dropped", extra={"id": waiting.notification.id, "reason": reason})
        self._unsaved[waiting.key] = ValueSet(waiting.key, None)
        await self._store()

    async def _store(self) -> None:
        async with self._order:
            changes, self._unsaved = self._unsaved, {}
            try:
                await self._save(list(changes.values()))
            except StoreFull:
                self._unsaved = {**changes, **self._unsaved}
