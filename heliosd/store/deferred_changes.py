"""What may be stored later: it waits until the disk takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from .changes import Change, Save


class DeferredChanges:
    """Changes that may wait until the disk takes them: stored in the order in which they were added.

    Those of a call that was cancelled may be stored twice; only changes for which that makes no difference belong
    here.
    """

    def __init__(self, save: Save) -> None:
        self._save = save
        self._waiting: list[Change] = []
        # Of two calls at once a nearly full disk may refuse the first and take the second.
        self._order = trio.Lock()

    def __bool__(self) -> bool:
        """Whether any wait."""
        return bool(self._waiting)

    def add(self, changes: Sequence[Change]) -> None:
        """Store these with the next `store`."""
        self._waiting += changes

    async def store(
        self, changes: Sequence[Change] = (), *, first: Sequence[Change] = (), last: Sequence[Change] = ()
    ) -> None:
        """Store `first`, then all that waits, `changes`, and `last`: all or none, and one call after another.

        Raises `StoreFull`; then all but `first` and `last` wait. Likewise after a cancellation.
        """
        self._waiting += changes
        async with self._order:
            waiting, self._waiting = self._waiting, []
            try:
                await self._save([*first, *waiting, *last])
            except BaseException:
                self._waiting = waiting + self._waiting
                raise

    async def reset(self, changes: Sequence[Change], reset: Callable[[], Sequence[Change]]) -> None:
        """Store `changes`, behind all that waits, and call `reset` once they are on disk. What it returns is what
        they were, with what has come since: it is stored with the next `store`.

        Raises `StoreFull`: then `reset` was not called, and none of `changes` waits. After a cancellation it was
        called, as the disk may have them.
        """
        try:
            await self.store(last=changes)
        except trio.Cancelled:
            self.add(reset())
            raise
        self.add(reset())
