"""Garbage in cycles is collected a little at a time, and not in the middle of what runs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from heliosd.daemon import garbage


class Ring:
    def __init__(self) -> None:
        self.self = self


@pytest.fixture(autouse=True)
def searches_only_when_asked_for() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_garbage_is_gone_within_a_look_once_there_is_enough_of_it(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(garbage.collect_regularly, lambda: 0)
        many = [weakref.ref(Ring()) for _ in range(2 * garbage.WORTH_A_SEARCH)]
        await trio.sleep(garbage.LOOK_SECONDS * 1.5)
        assert all(each() is None for each in many)
        nursery.cancel_scope.cancel()


async def test_what_outlived_a_search_and_became_garbage_later_is_found_after_more_searches(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(garbage.collect_regularly, lambda: 0)
        kept = [Ring() for _ in range(2 * garbage.WORTH_A_SEARCH)]
        one = weakref.ref(kept[0])
        await trio.sleep(garbage.LOOK_SECONDS * 1.5)
        kept.clear()
        for _ in range(garbage.OLDER_AFTER + 2):
            assert [Ring() for _ in range(2 * garbage.WORTH_A_SEARCH)]
            await trio.sleep(garbage.LOOK_SECONDS * 1.5)
        assert one() is None
        nursery.cancel_scope.cancel()


async def test_what_clients_keep_that_have_joined_is_not_searched_and_garbage_beside_it_is(
    autojump_clock: MockClock,
) -> None:
    clients: list[list[Ring]] = []
    searches: list[int] = []

    def note(phase: str, found: dict[str, int]) -> None:
        if phase == "stop":
            searches.append(found["generation"])

    gc.callbacks.append(note)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(garbage.collect_regularly, lambda: len(clients))
            await trio.testing.wait_all_tasks_blocked()
            # One more for each of them is the list.
            clients += [[Ring() for _ in range(garbage.KEPT_FOR_A_CLIENT // 2)] for _ in range(2_000)]
            await trio.sleep(garbage.LOOK_SECONDS * 1.5)
            assert not searches
            assert [Ring() for _ in range(2 * garbage.WORTH_A_SEARCH)]
            await trio.sleep(garbage.LOOK_SECONDS * 1.5)
            assert searches == [0]
            nursery.cancel_scope.cancel()
    finally:
        gc.callbacks.remove(note)
