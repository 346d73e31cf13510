"""Changes that wait until the disk takes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from heliosd.errors import StoreFull
from heliosd.store.changes import Change, DeferredChanges, RecordsCleared


class Disk:
    def __init__(self) -> None:
        self.saved: list[Change] = []
        self.full = False

    async def save(self, changes: Sequence[Change]) -> None:
        if self.full:
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
