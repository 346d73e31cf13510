"""Numbering across restarts, kills and full disks: the same number never means two events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.clock import Instant
from heliosd.errors import StoreFull
from heliosd.hub.inbox import NewEpoch
from heliosd.hub.local_numbering import LocalNumbering
from heliosd.protocol.events import Happened, PeerChanged
from heliosd.protocol.history import History
from heliosd.protocol.message import OutgoingMessage
from heliosd.store.changes import (
    Change,
    EventsCleared,
    EventsLogged,
    EventsTrimmed,
    LoggedEvent,
    Saved,
    ValueSet,
)

ADDED = Happened(PeerChanged(event_type="added", peer_id="node-4", peer_address="127.0.0.1:7003"))


@dataclass
class DiskAndMark:
    """What survives a kill: the stored events and values, and the epoch that is marked as complete."""

    events: list[LoggedEvent] = field(default_factory=list)
    values: dict[str, bytes] = field(default_factory=dict)
    epoch: str = ""
    full: bool = False
    mark_fails: bool = False
    """Behind the rename, as where the directory cannot be synced."""

    async def save(self, changes: Sequence[Change]) -> None:
        if self.full:
            raise StoreFull("no space left on device")
        for change in changes:
            match change:
                case EventsLogged(events):
                    self.events += events
                case EventsTrimmed(before_seq):
                    self.events = [event for event in self.events if event.seq >= before_seq]
                case EventsCleared():
                    self.events = []
                case ValueSet(name, bytes(body)):
                    self.values[name] = body
                case _:
                    raise AssertionError(change)

    def complete_epoch(self) -> str:
        return self.epoch

    async def mark_complete(self, epoch: str) -> None:
        if self.full:
            raise StoreFull("no space left on device")
        self.epoch = epoch
        if self.mark_fails:
            raise StoreFull("input/output error")

    async def mark_incomplete(self) -> None:
        self.epoch = ""

    def start(self, max_events: int = 100, max_age: float = 1e9, missing: ValueSet | None = None) -> Started:
        return Started(self, max_events, max_age, missing)


class Started:
    """The numbering stage, and the hub's log as the hub keeps it."""

    def __init__(
        self, disk: DiskAndMark, max_events: int, max_age: float, missing: ValueSet | None = None
    ) -> None:
        self.wall = 0.0
        saved = Saved(events=tuple(disk.events), values=dict(disk.values))
        self.stage = LocalNumbering(
            saved,
            save=disk.save,
            epoch_marker=disk,
            max_events=max_events,
            max_age=max_age,
            missing=missing,
            now=lambda: Instant(self.wall, self.wall),
        )
        self.log = self.stage.log

    @property
    def history(self) -> History:
        return self.log.history

    async def number(self, *events: Happened, wall: float = 0.0) -> list[int | None]:
        """Number these and let the hub send them; returns their numbers."""
        self.wall = wall
        numbers: list[int | None] = []
        for item in await self.stage.number(events):
            if isinstance(item, NewEpoch):
                self.log.begin(item.epoch, item.seq, item.kept)
            elif isinstance(item, OutgoingMessage):
                self.history.keep(item, wall)
                numbers.append(item.seq)
        return numbers


async def test_numbers_go_on_after_a_restart_and_what_was_sent_can_be_sent_again() -> None:
    disk = DiskAndMark()
    log = disk.start()
    await log.stage.begin()
    assert await log.number(*[ADDED] * 3) == [1, 2, 3]
    payloads = [message.payload for message in log.history.kept()]
    again = disk.start()
    await again.stage.begin()
    assert (again.history.epoch, again.history.seq) == (log.history.epoch, 3)
    assert [message.payload for message in again.history.kept()] == payloads
    assert await again.number(ADDED) == [4]


async def test_numbers_go_on_though_everything_was_too_old_to_keep() -> None:
    disk = DiskAndMark()
    log = disk.start(max_age=10)
    await log.stage.begin()
    await log.number(*[ADDED] * 3, wall=100.0)
    await log.number(*[ADDED] * 1, wall=500.0)
    assert [event.seq for event in disk.events] == [4]
    again = disk.start(max_age=10)
    assert (again.history.seq, again.history.oldest_seq) == (4, 4)


async def test_on_disk_is_what_is_kept_and_no_more() -> None:
    disk = DiskAndMark()
    log = disk.start(max_events=5)
    await log.stage.begin()
    for _ in range(4):
        await log.number(*[ADDED] * 3)
    assert [event.seq for event in disk.events] == [8, 9, 10, 11, 12]
    assert [message.seq for message in log.history.kept()] == [8, 9, 10, 11, 12]


async def test_with_a_smaller_history_a_start_keeps_the_newest() -> None:
    disk = DiskAndMark()
    log = disk.start()
    await log.stage.begin()
    await log.number(*[ADDED] * 10)
    again = disk.start(max_events=3)
    assert ([m.seq for m in again.history.kept()], again.history.seq) == ([8, 9, 10], 10)


async def test_what_goes_with_an_event_is_stored_with_it_also_after_trouble() -> None:
    disk = DiskAndMark()
    log = disk.start()
    await log.stage.begin()
    await log.number(Happened(ADDED.event, (ValueSet("receipt", b"1"),)))
    assert disk.values["receipt"] == b"1"
    disk.full = True
    await log.number(Happened(ADDED.event, (ValueSet("receipt", b"2"),)))
    assert disk.values["receipt"] == b"1"
    disk.full = False
    assert await log.stage.retry()
    assert disk.values["receipt"] == b"2"


@pytest.mark.parametrize("full", [False, True])
async def test_a_start_that_misses_events_begins_an_epoch_and_stores_with_it_that_nothing_is_missing(
    full: bool,
) -> None:
    disk = DiskAndMark()
    log = disk.start()
    await log.stage.begin()
    await log.number(*[ADDED] * 3)
    disk.full = full
    again = disk.start(missing=ValueSet("receipt", b"7"))
    await again.stage.begin()
    assert (again.history.epoch != log.history.epoch, again.history.seq) == (True, 0)
    assert disk.epoch == ("" if full else again.history.epoch)
    disk.full = False
    assert full is False or await again.stage.retry()
    assert (disk.values["receipt"], disk.events) == (b"7", [])
    assert disk.start().history.epoch == again.history.epoch


async def test_a_start_on_a_full_disk_goes_on_in_memory() -> None:
    disk = DiskAndMark(full=True)
    log = disk.start()
    await log.stage.begin()
    assert log.log.trouble
    assert await log.number(*[ADDED] * 2) == [1, 2]


async def test_a_kill_between_storing_an_epoch_and_marking_it_complete_begins_another() -> None:
    disk = DiskAndMark()
    log = disk.start()
    await log.stage.begin()
    await log.number(*[ADDED] * 2)
    disk.epoch = ""
    assert disk.start().history.epoch != log.history.epoch


async def test_an_epoch_whose_mark_failed_but_is_on_disk_gets_no_more_numbers() -> None:
    disk = DiskAndMark(full=True)
    log = disk.start()
    await log.stage.begin()
    disk.full, disk.mark_fails = False, True
    await log.number(ADDED)
    assert not await log.stage.retry()
    before = log.history.epoch
    await log.number(ADDED)
    again = disk.start()
    await again.stage.begin()
    assert log.history.epoch != before
    assert again.history.epoch != log.history.epoch


STEPS = st.lists(
    st.sampled_from(["event", "event", "event", "full", "room", "mark fails", "retry", "kill"]), max_size=40
)


@given(STEPS)
async def test_whatever_happens_a_number_of_an_epoch_means_one_event_and_no_resume_hides_a_loss(
    steps: list[str],
) -> None:
    """Every event that was sent is remembered with its (epoch, seq). None may be missing from an epoch that a later
    start goes on with: else a client would get `recovered: true` over a hole."""
    disk = DiskAndMark()
    log = disk.start()
    await log.stage.begin()
    said: dict[tuple[str, int], float] = {}
    order: list[tuple[str, int]] = []
    wall = 0.0
    for step in steps:
        wall += 1.0
        match step:
            case "event":
                for seq in await log.number(*[ADDED] * 2, wall=wall):
                    assert seq is not None
                    key = (log.history.epoch, seq)
                    assert said.setdefault(key, wall) == wall
                    order.append(key)
            case "full" | "room":
                disk.full = step == "full"
                disk.mark_fails = False
            case "mark fails":
                disk.full, disk.mark_fails = False, True
            case "retry" if log.log.trouble is not None:
                await log.stage.retry()
            case "kill":
                log = disk.start()
                log.wall = wall
                await log.stage.begin()
                epoch = log.history.epoch
                mine = [seq for of, seq in order if of == epoch]
                assert log.history.seq == (max(mine) if mine else 0)
                # The newest event that was sent is of this epoch, or this epoch is a new one.
                assert not mine or order[-1][0] == epoch
            case _:
                pass


@pytest.mark.parametrize("count", [1, 50])
async def test_a_group_is_stored_whole_or_not_at_all(count: int) -> None:
    disk = DiskAndMark()
    log = disk.start()
    await log.stage.begin()
    disk.full = True
    assert await log.number(*[ADDED] * count) == list(range(1, count + 1))
    assert disk.events == []
