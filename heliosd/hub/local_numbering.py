"""The numbering stage of a daemon that keeps its own event log: events get their numbers here, and are on disk
before the hub has them.

1. `recovered: true` promises that nothing is missing. While the store cannot write, events go on under a new
   epoch that is in memory only.
2. Before that the events on disk are marked as incomplete, apart from the store, so that no later start goes on
   with a numbering in which something is missing.
3. Once the store writes again, all that is kept becomes durable under the new epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

import msgspec
import trio

from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.cluster.subscribers import ItemQueue
from heliosd.errors import StoreFull
from heliosd.protocol import server_messages
from heliosd.protocol.events import (
    BackendItem,
    Happened,
    MetricValuesChanged,
    Stamped,
    StateComplete,
    StatusChanged,
)
from heliosd.protocol.history import History
from heliosd.protocol.message import OutgoingMessage, replayed
from heliosd.store.changes import (
    Change,
    EventsCleared,
    EventsLogged,
    EventsTrimmed,
    LoggedEvent,
    Save,
    Saved,
    ValueSet,
)

from .event_log import EventLog, new_epoch
from .inbox import HubItem, NewEpoch, NumberedItem, next_batch, send_all, until

HEAD = "events/head"
"""The stored value: epoch and newest number."""
RETRY_SECONDS = 1.0
"""Between attempts to make the log durable again."""


class EpochMarker(Protocol):
    """Says of the events on disk, apart from them, that nothing is missing. Works on a full disk, too."""

    def complete_epoch(self) -> str:
        """The epoch that was marked as complete; "" = none."""
        ...

    async def mark_complete(self, epoch: str) -> None:
        """The events on disk are all events of `epoch`. Raises `StoreFull`."""
        ...

    async def mark_incomplete(self) -> None:
        """They are not. Raises `StoreFull` if even that cannot be stored."""
        ...


class _StoredHead(msgspec.Struct, frozen=True):
    epoch: str
    seq: int


class LocalNumbering:
    """Numbers the events of one daemon and makes them durable. `log` is the one that the hub uses: it has what was
    sent, while this stage may already have numbered more."""

    def __init__(
        self,
        saved: Saved,
        *,
        save: Save,
        epoch_marker: EpochMarker,
        max_events: int,
        max_age: float,
        now: Callable[[], Instant],
        missing: ValueSet | None = None,
        make_epoch: Callable[[], str] = new_epoch,
    ) -> None:
        """`missing`: events that never were stored are missing in `saved`, so a new epoch begins; this is stored
        with it."""
        self._save = save
        self._epoch_marker = epoch_marker
        self._now = now
        self._make_epoch = make_epoch
        self._retry_at = inf
        self._perhaps_marked = False
        """Marking the epoch as complete failed, but its mark may be on disk."""
        self._unstored: dict[object, Change] = {}
        """Markers that were not stored, by what they replace: only the newest of a value counts."""
        self._events: ItemQueue | None = None
        self._busy = False
        head = _read_head(saved)
        self._stored = missing is None and head is not None and epoch_marker.complete_epoch() == head.epoch
        if missing is not None:
            self._unstored[missing.name] = missing
        kept: list[OutgoingMessage] = []
        if head is None or not self._stored:
            head = _StoredHead(make_epoch(), 0)
        else:
            kept = [
                replayed(seq=event.seq, at=event.at, name=event.type, payload=event.payload)
                for event in saved.events[-max_events:]
            ]
        self._history = History(head.epoch, max_events, max_age, seq=head.seq, kept=kept)
        self.log = EventLog(max_events=max_events, max_age=max_age, first_epoch=lambda: head.epoch)
        self.log.begin(head.epoch, head.seq, kept)

    async def run(
        self,
        backend: Backend,
        hub: trio.MemorySendChannel[HubItem],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Carry the backend's events to the hub, until cancelled. While the hub is busy this waits, and so does the
        backend."""
        async with backend.events() as events, hub:
            self._events = events
            await self.begin()
            task_status.started()
            while True:
                batch: list[BackendItem] = []
                with trio.move_on_at(self._retry_at):
                    batch = await next_batch(events)
                self._busy = True
                if self._now().mono >= self._retry_at:
                    await self.retry()
                if batch:
                    await send_all(hub, await self.number(batch))
                self._busy = False

    async def caught_up(self) -> None:
        """Return once all that the backend has sent so far is with the hub."""
        events = self._events
        await until(lambda: not self._busy and events is not None and not events.waiting)

    async def begin(self) -> None:
        """Store a new epoch before the first event of it. Call it once, before `number`."""
        if not self._stored:
            try:
                await self._store_whole()
            except StoreFull as full:
                await self._go_without(str(full))
                self.log.begin(self._history.epoch)

    async def number(self, batch: Sequence[BackendItem]) -> Sequence[NumberedItem]:
        """The same items with numbered events, which are on disk, all in one transaction, or `log.trouble` says why
        not; then a new epoch comes first."""
        happened = [item for item in batch if isinstance(item, Happened)]
        numbered: list[NumberedItem] = []
        events: Sequence[OutgoingMessage] = ()
        if happened:
            epoch = self._history.epoch
            events = await self._commit(happened)
            if self._history.epoch != epoch:
                numbered.append(NewEpoch(self._history.epoch))
        rest = iter(events)
        for item in batch:
            match item:
                case Happened():
                    numbered.append(next(rest))
                case MetricValuesChanged() | StatusChanged() | StateComplete():
                    numbered.append(item)
                case _:
                    raise TypeError(f"only a cluster's log has {item}")
        return numbered

    async def _commit(self, happened: Sequence[Happened]) -> Sequence[OutgoingMessage]:
        wall = self._now().wall
        applied_markers = [change for item in happened for change in item.applied_marker]
        if self.log.trouble is None:
            events = self._numbered(happened, wall)
            head = _StoredHead(self._history.epoch, self._history.seq + len(events))
            self._history.expire(wall)
            trimmed = EventsTrimmed(before_seq=self._history.oldest_after(len(events)))
            try:
                await self._save([EventsLogged(_rows(events)), trimmed, _stored_head(head), *applied_markers])
            except StoreFull as full:
                await self._go_without(str(full))
        if self.log.trouble is not None and self._perhaps_marked:
            # A start would find it complete without these events, and give their numbers to others.
            await self._go_without(self.log.trouble)
        if self.log.trouble is not None:
            for change in applied_markers:
                self._unstored[change.name if isinstance(change, ValueSet) else change] = change
            events = self._numbered(happened, wall)
        for event in events:
            self._history.keep(event, wall)
        return events

    async def retry(self) -> bool:
        """Try to make everything that is kept durable, the present epoch with it. Whether it is."""
        try:
            await self._store_whole()
        except StoreFull as full:
            self.log.trouble = str(full)
            self._retry_at = self._now().mono + RETRY_SECONDS
            return False
        self.log.trouble = None
        self._retry_at = inf
        return True

    async def _store_whole(self) -> None:
        head = _StoredHead(self._history.epoch, self._history.seq)
        # Incomplete until it is whole: a crash in between must not leave a log that is half one epoch's.
        await self._epoch_marker.mark_incomplete()
        self._perhaps_marked = False
        if self.log.trouble is not None:
            await self._save(
                [_stored_head(head)]
            )  # on a full disk this fails sooner than thousands of events
        kept = EventsLogged(_rows(self._history.kept()))
        await self._save([EventsCleared(), kept, _stored_head(head), *self._unstored.values()])
        self._unstored.clear()
        self._perhaps_marked = True
        await self._epoch_marker.mark_complete(head.epoch)
        self._perhaps_marked = False

    async def _go_without(self, reason: str) -> None:
        self.log.trouble = reason
        self._retry_at = self._now().mono + RETRY_SECONDS
        try:
            with trio.CancelScope(shield=True):  # a stop must not leave it marked as complete
                await self._epoch_marker.mark_incomplete()
        except StoreFull:
            # Not even a file can be removed: the disk is read-only or gone, and a start will refuse it or find
            # what was stored before the trouble began.
            self.log.trouble = f"{reason}; and what is stored cannot be marked as incomplete"
        self._history.restart(self._make_epoch())
        self._perhaps_marked = False  # at most as another epoch

    def _numbered(self, happened: Sequence[Happened], wall: float) -> list[OutgoingMessage]:
        first = self._history.seq + 1
        return [
            server_messages.of_event(Stamped(seq, wall, item.event))
            for seq, item in enumerate(happened, first)
        ]


def _rows(events: Sequence[OutgoingMessage]) -> tuple[LoggedEvent, ...]:
    return tuple(
        LoggedEvent(seq=message.seq, at=message.at, type=message.type, payload=message.payload)
        for message in events
        if message.seq is not None
    )


def _stored_head(head: _StoredHead) -> ValueSet:
    return ValueSet(HEAD, msgspec.json.encode(head))


def _read_head(saved: Saved) -> _StoredHead | None:
    body = saved.values.get(HEAD)
    return None if body is None else msgspec.json.decode(body, type=_StoredHead)
