"""Loads what most daemons never need when it is first asked for: modules of ours and the libraries under them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

SWITCH_SECONDS = 0.000_1
"""While something is loaded, the event loop has the interpreter back so soon after each system call."""


class OnDemand(Generic[T]):
    """The value of `load`, which imports what it needs.

    `load` runs in a worker thread, so that the event loop goes on meanwhile, and only until it has succeeded once.
    docs/performance.md says what is loaded so, and what that saves.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._loaded: list[T] = []
        self._loading = trio.Lock()

    async def get(self) -> T:
        """The value, at once if it is there. Raises what `load` raises; the next call tries again."""
        if not self._loaded:
            async with self._loading:
                if not self._loaded:
                    with _frequent_switches():
                        self._loaded.append(await trio.to_thread.run_sync(self._load))
        return self._loaded[0]


_loads = 0
_usual_seconds = 0.0


@contextmanager
def _frequent_switches() -> Generator[None]:
    """The event loop lets go of the interpreter at each system call, and waits Python's 5 ms for it afterwards."""
    global _loads, _usual_seconds  # noqa: PLW0603, as the setting is the process's
    if not _loads:
        _usual_seconds = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
    _loads += 1
    try:
        yield
    finally:
        _loads -= 1
        if not _loads:
            sys.setswitchinterval(_usual_seconds)
