"""Changes that wait until the disk takes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.errors import StoreFull
from heliosd.store.changes import Change, RecordAdded, RecordsCleared, ValueSet
from heliosd.store.deferred_changes import DeferredChanges, merged
from tests.support.simulated_harness import MemoryStore


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


CHANGES = st.lists(
    st.builds(ValueSet, st.sampled_from("ab"), st.none() | st.sampled_from([b"1", b"2"]))
    | st.builds(
        RecordAdded, st.sampled_from("xy"), st.integers(1, 9), st.sampled_from([b"1", b"2"]), st.just(3)
    )
    | st.builds(RecordsCleared, st.sampled_from("xy"))
)


@given(before=CHANGES, changes=CHANGES)
def test_merged_changes_have_the_same_effect_and_are_few(before: list[Change], changes: list[Change]) -> None:
    def stored(*batches: list[Change]) -> object:
        store = MemoryStore(seconds=0.0)
        for batch in batches:
            trio.run(store.save, batch)
        return store.load()

    assert stored(before, merged(changes)) == stored(before, changes)
    assert len(merged(changes)) <= 2 + 2 + 2 * 3


async def test_a_disk_that_refuses_for_long_makes_no_more_changes_wait(autojump_clock: MockClock) -> None:
    disk = Disk()
    deferred = DeferredChanges(disk.save)
    disk.full = True
    for key in range(1000):
        with pytest.raises(StoreFull):
            await deferred.store([RecordAdded("session", key, b"{}", 20), ValueSet("totals", b"%d" % key)])
    disk.full = False
    await deferred.store()
    assert len(disk.saved) == 21
    assert disk.saved[-1] == ValueSet("totals", b"999")
