"""A long synchronous stretch of work, cut into turns that are short for everybody else."""

from __future__ import annotations

from time import perf_counter

import trio

TURN_SECONDS = 0.00025
"""Reckoned in time, not in clients served: what one of them costs differs threefold from machine to machine, and so
would the loop's lag. A checkpoint costs as much as one or two deliveries."""


class TimeSlice:
    """One task's turn of the loop."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = perf_counter()

    @property
    def over(self) -> bool:
        """It has lasted long enough."""
        return perf_counter() - self._since >= TURN_SECONDS

    async def pause(self) -> None:
        """Let the others run, and begin another turn. To be called where nothing is half done."""
        await trio.lowlevel.checkpoint()
        self._since = perf_counter()
