"""The event log across restarts, kills and full disks: the same number never says two things."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.errors import StoreFull
from heliosd.hub.local_log import LocalLog
from heliosd.protocol.events import PeerChanged
from heliosd.store.changes import (
    Change,
    EventsCleared,
    EventsLogged,
    EventsTrimmed,
    LoggedEvent,
    Saved,
    ValueSet,
)

ADDED = PeerChanged(event_type="added", peer_id="node-4", peer_address="127.0.0.1:7003")


@dataclass
class DiskAndWord:
    """What survives a kill: the stored events and values, and the epoch that is vouched for."""

    events: list[LoggedEvent] = field(default_factory=list)
    values: dict[str, bytes] = field(default_factory=dict)
    epoch: str = ""
    full: bool = False

    async def save(self, changes: list[Change]) -> None:
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

    def mark_complete(self, epoch: str) -> None:
        if self.full:
            raise StoreFull("no space left on device")
        self.epoch = epoch

    def mark_incomplete(self) -> None:
        self.epoch = ""

    def start(self, max_events: int = 100, max_age: float = 1e9) -> LocalLog:
        saved = Saved(events=tuple(self.events), values=dict(self.values))
        return LocalLog(
            saved,
            save=self.save,  # type: ignore[arg-type]
            epoch_marker=self,
            max_events=max_events,
            max_age=max_age,
        )


async def tell(log: LocalLog, count: int = 1, wall: float = 0.0) -> list[int | None]:
    """As the hub does: commit, then keep each as it is told."""
    told = await log.commit([(ADDED, ())] * count, wall, wall)
    for message in told:
        log.history.keep(message, wall)
    return [message.seq for message in told]


async def test_numbers_go_on_after_a_restart_and_what_was_told_can_be_told_again() -> None:
    disk = DiskAndWord()
    log = disk.start()
    await log.open(0.0)
    assert await tell(log, 3) == [1, 2, 3]
    payloads = [message.payload for message in log.history.kept()]
    again = disk.start()
    await again.open(0.0)
    assert (again.history.epoch, again.history.seq) == (log.history.epoch, 3)
    assert [message.payload for message in again.history.kept()] == payloads
    assert await tell(again) == [4]


async def test_numbers_go_on_though_everything_was_too_old_to_keep() -> None:
    disk = DiskAndWord()
    log = disk.start(max_age=10)
    await log.open(0.0)
    await tell(log, 3, wall=100.0)
    await tell(log, 1, wall=500.0)
    assert [event.seq for event in disk.events] == [4]
    again = disk.start(max_age=10)
    assert (again.history.seq, again.history.oldest_seq) == (4, 4)


async def test_on_disk_is_what_is_kept_and_no_more() -> None:
    disk = DiskAndWord()
    log = disk.start(max_events=5)
    await log.open(0.0)
    for _ in range(4):
        await tell(log, 3)
    assert [event.seq for event in disk.events] == [8, 9, 10, 11, 12]
    assert [message.seq for message in log.history.kept()] == [8, 9, 10, 11, 12]


async def test_with_a_smaller_history_a_start_keeps_the_newest() -> None:
    disk = DiskAndWord()
    log = disk.start()
    await log.open(0.0)
    await tell(log, 10)
    again = disk.start(max_events=3)
    assert ([m.seq for m in again.history.kept()], again.history.seq) == ([8, 9, 10], 10)


async def test_what_goes_with_an_event_is_stored_with_it_also_after_trouble() -> None:
    disk = DiskAndWord()
    log = disk.start()
    await log.open(0.0)
    await log.commit([(ADDED, (ValueSet("receipt", b"1"),))], 0.0, 0.0)
    assert disk.values["receipt"] == b"1"
    disk.full = True
    await log.commit([(ADDED, (ValueSet("receipt", b"2"),))], 0.0, 0.0)
    assert disk.values["receipt"] == b"1"
    disk.full = False
    assert await log.retry(5.0)
    assert disk.values["receipt"] == b"2"


async def test_a_start_on_a_full_disk_goes_on_in_memory() -> None:
    disk = DiskAndWord(full=True)
    log = disk.start()
    await log.open(0.0)
    assert log.trouble
    assert await tell(log, 2) == [1, 2]


async def test_a_kill_between_storing_an_epoch_and_vouching_for_it_begins_another() -> None:
    disk = DiskAndWord()
    log = disk.start()
    await log.open(0.0)
    await tell(log, 2)
    disk.epoch = ""
    assert disk.start().history.epoch != log.history.epoch


STEPS = st.lists(st.sampled_from(["tell", "tell", "tell", "full", "room", "retry", "kill"]), max_size=40)


@settings(max_examples=300)
@given(STEPS)
async def test_whatever_happens_a_number_of_an_epoch_says_one_thing_and_no_resume_hides_a_loss(
    steps: list[str],
) -> None:
    """Every event that was told is remembered with its (epoch, seq). Nothing told may be missing from an epoch that
    a later start goes on with: else a client would be told `recovered: true` over a hole."""
    disk = DiskAndWord()
    log = disk.start()
    await log.open(0.0)
    said: dict[tuple[str, int], float] = {}
    order: list[tuple[str, int]] = []
    wall = 0.0
    for step in steps:
        wall += 1.0
        match step:
            case "tell":
                for seq in await tell(log, 2, wall):
                    assert seq is not None
                    key = (log.history.epoch, seq)
                    assert said.setdefault(key, wall) == wall
                    order.append(key)
            case "full" | "room":
                disk.full = step == "full"
            case "retry" if log.trouble is not None:
                await log.retry(wall)
            case "kill":
                log = disk.start()
                await log.open(wall)
                epoch = log.history.epoch
                mine = [seq for of, seq in order if of == epoch]
                assert log.history.seq == (max(mine) if mine else 0)
                # The newest event that anyone heard is of this epoch, or this epoch is a new one.
                assert not mine or order[-1][0] == epoch
            case _:
                pass


@pytest.mark.parametrize("count", [1, 50])
async def test_a_group_is_stored_whole_or_not_at_all(count: int) -> None:
    disk = DiskAndWord()
    log = disk.start()
    await log.open(0.0)
    disk.full = True
    assert await tell(log, count) == list(range(1, count + 1))
    assert disk.events == []
