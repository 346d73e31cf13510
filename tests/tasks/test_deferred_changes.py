"""Changes that wait until the disk takes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.errors import StoreFull
from heliosd.store.changes import Change, RecordsCleared
from heliosd.store.deferred_changes import DeferredChanges


class Disk:
    def __init__(self) -> None:
        self.saved: list[Change] = []
        self.full = False
        self.answers = trio.Event()
        self.answers.set()

    async def save(self, changes: Sequence[Change]) -> None:
        full = self.full
        await self.answers.wait()
        if full:
            raise StoreFull("no space")
        self.saved += changes


ONE, TWO, THREE = RecordsCleared("one"), RecordsCleared("two"), RecordsCleared("three")


async def test_changes_are_stored_once_in_their_order_behind_what_goes_first() -> None:
    disk = Disk()
    deferred = DeferredChanges(disk.save)
    deferred.add([ONE])
    deferred.add([TWO])
    await deferred.store(first=[THREE])
    await deferred.store()
    assert disk.saved == [THREE, ONE, TWO]
    assert not deferred


async def test_what_the_disk_refused_waits_ahead_of_what_came_later_and_what_went_first_does_not() -> None:
    disk = Disk()
    deferred = DeferredChanges(disk.save)
    deferred.add([ONE])
    disk.full = True
    with pytest.raises(StoreFull):
        await deferred.store(first=[THREE])
    assert deferred
    deferred.add([TWO])
    disk.full = False
    await deferred.store()
    assert disk.saved == [ONE, TWO]


async def test_a_call_behind_one_that_is_refused_stores_what_waited_ahead_of_its_own(
    autojump_clock: MockClock,
) -> None:
    disk = Disk()
    deferred = DeferredChanges(disk.save)

    async def refused() -> None:
        with pytest.raises(StoreFull):
            await deferred.store()

    deferred.add([ONE])
    disk.full, disk.answers = True, trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused)
        await wait_all_tasks_blocked()
        disk.full = False
        nursery.start_soon(deferred.store, [TWO])
        await wait_all_tasks_blocked()
        disk.answers.set()
    assert disk.saved == [ONE, TWO]


async def test_a_cancelled_call_leaves_waiting_what_waited(autojump_clock: MockClock) -> None:
    disk = Disk()
    deferred = DeferredChanges(disk.save)
    deferred.add([ONE])
    disk.answers = trio.Event()
    with trio.move_on_after(1):
        await deferred.store([TWO])
    assert deferred
    disk.answers.set()
    await deferred.store([THREE])
    assert disk.saved == [ONE, TWO, THREE]


async def test_a_reset_is_done_once_what_it_stores_is_on_disk_and_not_where_that_is_refused() -> None:
    disk, done = Disk(), list[str]()
    deferred = DeferredChanges(disk.save)
    deferred.add([ONE])

    def reset() -> list[Change]:
        done.append("reset")
        return [TWO, THREE]

    disk.full = True
    with pytest.raises(StoreFull):
        await deferred.reset([TWO], reset)
    assert done == []
    disk.full = False
    await deferred.reset([TWO], reset)
    assert (disk.saved, done) == ([ONE, TWO], ["reset"])
    await deferred.store()
    assert disk.saved == [ONE, TWO, TWO, THREE]


async def test_a_reset_whose_caller_has_left_is_done_as_the_disk_may_have_it(
    autojump_clock: MockClock,
) -> None:
    disk = Disk()
    deferred = DeferredChanges(disk.save)
    disk.answers = trio.Event()
    with trio.move_on_after(1):
        await deferred.reset([TWO], lambda: [THREE])
    disk.answers.set()
    await deferred.store()
    assert disk.saved == [THREE]
