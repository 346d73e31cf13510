"""Moments at which something is due, of which most are cancelled before they come."""

from __future__ import annotations

import heapq
from itertools import count
from math import inf
from typing import Generic, TypeVar

_STALE_KEPT = 64


Item = TypeVar("Item")


class Schedule(Generic[Item]):
    """Times are monotonic seconds. `schedule` and `cancel` cost the same however many there are."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._heap: list[tuple[float, int]] = []
        """Moments, each with the number of what is due then. Numbers that are not in `_items` are stale."""
        self._items: dict[int, Item] = {}

    def __len__(self) -> int:
        """How many entries are held in memory, cancelled ones included."""
        return len(self._heap)

    @property
    def next_due(self) -> float:
        """When to call `pop` next; infinity if nothing is due ever."""
        while self._heap and self._heap[0][1] not in self._items:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def schedule(self, due: float, item: Item) -> int:
        """`item` is due then; returns the number by which it can be cancelled, never 0."""
        number = next(self._numbers)
        self._items[number] = item
        heapq.heappush(self._heap, (due, number))
        if len(self._heap) > 2 * len(self._items) + _STALE_KEPT:
            # A deadline may lie years ahead, while connections last for seconds.
            self._heap = [entry for entry in self._heap if entry[1] in self._items]
            heapq.heapify(self._heap)
        return number

    def cancel(self, number: int) -> None:
        """Forget it, if it is still to come."""
        self._items.pop(number, None)

    def pending(self) -> list[tuple[float, Item]]:
        """All that is to come, with its moment."""
        return [(due, self._items[number]) for due, number in self._heap if number in self._items]

    def pop(self, now: float) -> Item | None:
        """Something that is due, removed; None: nothing is. Due at the same moment: in the order of scheduling."""
        while self._heap and self._heap[0][0] <= now:
            item = self._items.pop(heapq.heappop(self._heap)[1], None)
            if item is not None:
                return item
        return None
