"""The event log: events get their numbers here, and are on disk before anybody is told.

`recovered: true` is a promise, and this file keeps it. While the store cannot write, events go on under a new
epoch that lives in memory only; what is on disk is disowned first, so that no later start can take up a
numbering in which something is missing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import trio

from heliosd.errors import StoreFull
from heliosd.protocol import server_messages
from heliosd.protocol.events import Event, Stamped
from heliosd.protocol.history import Cursor, History
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

HEAD = "events/head"
"""The stored value: epoch and newest number."""
RETRY_SECONDS = 1.0
"""Between attempts to make the log durable again."""


class EpochMarker(Protocol):
    """Says of the events on disk, apart from them, that nothing is missing. Works on a full disk, too."""

    def complete_epoch(self) -> str:
        """The epoch that was vouched for; "" = none."""
        ...

    def mark_complete(self, epoch: str) -> None:
        """The events on disk are all events of `epoch`. Raises `StoreFull`."""
        ...

    def mark_incomplete(self) -> None:
        """They are not. Raises `StoreFull` if even that cannot be stored."""
        ...


class _StoredHead(msgspec.Struct, frozen=True):
    epoch: str
    seq: int


class LocalLog:
    """Numbers events, makes them durable, and keeps the newest for those who come back."""

    def __init__(
        self,
        saved: Saved,
        *,
        save: Save,
        epoch_marker: EpochMarker,
        max_events: int,
        max_age: float,
        new_epoch: Callable[[], str] = lambda: secrets.token_urlsafe(12),
    ) -> None:
        self._save = save
        self._epoch_marker = epoch_marker
        self._new_epoch = new_epoch
        self.trouble: str | None = None
        """Why events are not on disk; None: they are."""
        self.retry_at = 0.0
        """While there is trouble: the monotonic second of the next attempt."""
        self._unstored: list[Change] = []
        head = _read_head(saved)
        if head is not None and epoch_marker.complete_epoch() == head.epoch:
            kept = [
                replayed(seq=event.seq, at=event.at, name=event.type, payload=event.payload)
                for event in saved.events[-max_events:]
            ]
            self.history = History(head.epoch, max_events, max_age, seq=head.seq, kept=kept)
            self._fresh = False
        else:
            self.history = History(new_epoch(), max_events, max_age)
            self._fresh = True

    @property
    def readable(self) -> bool:
        """Always: it was read before anything ran."""
        return True

    def behind(self, cursor: Cursor | None) -> bool:
        """Never: nobody else tells these numbers."""
        del cursor
        return False

    async def reach(self, cursor: Cursor) -> None:
        del cursor
        await trio.lowlevel.checkpoint()

    async def open(self, now_mono: float) -> None:
        """Begin: a new epoch is stored before the first event of it. Call it once, before `commit`."""
        if self._fresh:
            try:
                await self._store_whole()
            except StoreFull as full:
                self._go_without(str(full), now_mono)

    async def commit(
        self, events: Sequence[tuple[Event, tuple[Change, ...]]], wall: float, now_mono: float
    ) -> list[OutgoingMessage]:
        """Number `events`, each with what must be stored with it, and return the messages to tell, in order.

        They are on disk, all in one transaction, or `trouble` says why not; then the epoch is another one.
        Tell each of them by `History.keep` and then to the clients.
        """
        applied_markers = [change for _, changes in events for change in changes]
        if self.trouble is not None:
            self._unstored += applied_markers
            return self._numbered(events, wall)
        outgoing = self._numbered(events, wall)
        head = _StoredHead(self.history.epoch, self.history.seq + len(outgoing))
        self.history.expire(wall)
        try:
            await self._save(
                [EventsLogged(_rows(outgoing)), self._trim(len(outgoing)), _head(head), *applied_markers]
            )
        except StoreFull as full:
            self._unstored += applied_markers
            self._go_without(str(full), now_mono)
            return self._numbered(events, wall)
        return outgoing

    async def retry(self, now_mono: float) -> bool:
        """Try to make everything that is kept durable, the present epoch with it. Whether it is."""
        try:
            await self._store_whole()
        except StoreFull as full:
            self.trouble = str(full)
            self.retry_at = now_mono + RETRY_SECONDS
            return False
        self.trouble = None
        return True

    async def _store_whole(self) -> None:
        kept = self.history.kept()
        head = _StoredHead(self.history.epoch, self.history.seq)
        # Disowned until it is whole: a crash in between must not leave a log that is half one epoch's.
        self._epoch_marker.mark_incomplete()
        await self._save([EventsCleared(), EventsLogged(_rows(kept)), _head(head), *self._unstored])
        self._unstored.clear()
        self._epoch_marker.mark_complete(head.epoch)

    def _go_without(self, reason: str, now_mono: float) -> None:
        self.trouble = reason
        self.retry_at = now_mono + RETRY_SECONDS
        try:
            self._epoch_marker.mark_incomplete()
        except StoreFull:
            # Not even a file can be removed: the disk is read-only or gone, and a start will refuse it or find
            # what was stored before the trouble began.
            self.trouble = f"{reason}; and what is stored cannot be disowned"
        self.history.restart(self._new_epoch())

    def _numbered(
        self, events: Sequence[tuple[Event, tuple[Change, ...]]], wall: float
    ) -> list[OutgoingMessage]:
        first = self.history.seq + 1
        return [
            server_messages.of_event(Stamped(first + number, wall, event))
            for number, (event, _) in enumerate(events)
        ]

    def _trim(self, coming: int) -> EventsTrimmed:
        """What the history will have forgotten once it has kept `coming` more."""
        return EventsTrimmed(before_seq=self.history.oldest_after(coming))


def _rows(outgoing: Sequence[OutgoingMessage]) -> tuple[LoggedEvent, ...]:
    return tuple(
        LoggedEvent(seq=message.seq, at=message.at, type=message.type, payload=message.payload)
        for message in outgoing
        if message.seq is not None
    )


def _head(head: _StoredHead) -> ValueSet:
    return ValueSet(HEAD, msgspec.json.encode(head))


def _read_head(saved: Saved) -> _StoredHead | None:
    body = saved.values.get(HEAD)
    return None if body is None else msgspec.json.decode(body, type=_StoredHead)
