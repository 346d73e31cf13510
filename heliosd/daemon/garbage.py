"""Looking for garbage in cycles, a little at a time and between two turns of the loop.

Python itself looks for it after so many new objects, in the middle of whatever runs then, and 100,000 objects of
garbage hold the loop for a tenth of a second. Failed attempts to connect make some: 28 objects each (trio 0.35).
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import trio

from heliosd.clock import next_beat

AT_MOST = 100_000
"""So many new objects that can form cycles start a search of the youngest ones at once. Clients that connect and
leave make no garbage (tests/edges/test_garbage.py), so a storm of new ones is only delayed by searches."""
LOOK_SECONDS = 1.0
WORTH_A_SEARCH = 2_000
"""With fewer new objects none is made: a search of so many takes 2 ms if all of them are garbage."""
OLDER_AFTER = 20
"""Objects that have outlived a search are searched after so many more."""
KEPT_FOR_A_CLIENT = 20
"""So many of the new objects a client that has joined accounts for. They are no garbage, and a search of those of
thousands of clients would be made in one turn of the loop."""


def keep_all_so_far() -> None:
    """The objects made so far stay, and no search looks at them again. Python's default is a search after every 700
    new ones."""
    gc.freeze()
    gc.set_threshold(AT_MOST, *gc.get_threshold()[1:])


async def collect_regularly(clients: Callable[[], int]) -> None:
    """Until cancelled. `clients` says how many are connected."""
    connected, count, unexplained = clients(), 0, 0
    while True:
        await trio.sleep_until(next_beat(trio.current_time(), LOOK_SECONDS))
        joined, connected = clients() - connected, clients()
        new, searches, _ = gc.get_count()
        unexplained += max(0, new - count - KEPT_FOR_A_CLIENT * max(0, joined))
        count = new
        if unexplained >= WORTH_A_SEARCH:
            gc.collect(1 if searches >= OLDER_AFTER else 0)
            count, unexplained = gc.get_count()[0], 0
