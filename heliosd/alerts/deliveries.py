"""Alerts that are due and not sent yet: stored, so that none is lost over a restart."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence

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


class Deliveries:
    """The queues of all alerts."""

    def __init__(self, saved: Saved, save: Save, counters: AlertCounters) -> None:
        self._save = save
        self._counters = counters
        self._queues: dict[str, deque[tuple[str, Notification]]] = {}
        self._news = trio.Event()
        self._unsaved: dict[str, ValueSet] = {}
        self._number = 0
        for key in sorted(key for key in saved.values if key.startswith(WAITING)):
            self._number = int(key.removeprefix(WAITING))
            waiting = msgspec.json.decode(saved.values[key], type=Notification)
            # It may have been sent just before the restart.
            self._append(key, structs.replace(waiting, repeated=True))

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
            added.append((f"{WAITING}{self._number:016d}", notification))
            self._unsaved[added[-1][0]] = ValueSet(added[-1][0], msgspec.json.encode(notification))
        if also is not None:
            self._unsaved[also.name] = also
        await self._store()
        for key, notification in added:
            self._append(key, notification)
        while len(self) > MAX_WAITING:
            longest = max(self._queues.values(), key=len)
            await self._drop(longest[0][0], longest, "too_many")

    async def next(self, alert: str) -> Notification:
        """The oldest one of this alert, when there is one. It stays until it is removed."""
        while not self._queues.get(alert):
            await self._news.wait()
        return self._queues[alert][0][1]

    def retry_later(self, notification: Notification) -> None:
        """It was not taken: the others of its alert are tried before it is again."""
        queue = self._queues.get(notification.alert, deque())
        if queue and queue[0][1].id == notification.id:
            key, _ = queue.popleft()
            queue.append((key, structs.replace(notification, repeated=True)))

    async def remove(self, notification: Notification, dropped: str = "") -> None:
        """It was sent, or is dropped for this reason. No effect if it is not there any more."""
        queue = self._queues.get(notification.alert, deque())
        for key, waiting in queue:
            if waiting.id == notification.id:
                await self._drop(key, queue, dropped)
                return

    async def keep_only(self, alerts: Iterable[str]) -> None:
        """Drop what waits for alerts that are not configured any more."""
        for name in self._queues.keys() - set(alerts):
            queue = self._queues[name]
            while queue:
                await self._drop(queue[0][0], queue, "not_configured")
            del self._queues[name]
            self._counters.waiting.pop(name, None)

    def _append(self, key: str, notification: Notification) -> None:
        self._queues.setdefault(notification.alert, deque()).append((key, notification))
        self._counters.waiting[notification.alert] = len(self._queues[notification.alert])
        self._news.set()
        self._news = trio.Event()

    async def _drop(self, key: str, queue: deque[tuple[str, Notification]], reason: str) -> None:
        found = next(item for item in queue if item[0] == key)
        queue.remove(found)
        self._counters.waiting[found[1].alert] = len(queue)
        if reason:
            self._counters.dropped[reason] += 1
            log.error("alert dropped", extra={"id": found[1].id, "reason": reason})
        self._unsaved[key] = ValueSet(key, None)
        await self._store()

    async def _store(self) -> None:
        changes, self._unsaved = self._unsaved, {}
        try:
            await self._save(list(changes.values()))
        except StoreFull:
            self._unsaved = {**changes, **self._unsaved}
