"""What may be stored later: it waits until the disk takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import trio

from .changes import Change, RecordAdded, RecordsCleared, Save, ValueSet


def merged(changes: Sequence[Change]) -> list[Change]:
    """Changes of one transaction without those that have no effect: of each value and each row the last one, of a
    history the rows that are kept. So a disk that refuses for days makes no more of them wait."""
    kept: dict[object, Change] = {}
    for place, change in enumerate(changes):
        name: object = place
        match change:
            case ValueSet():
                name = change.name
            case RecordAdded():
                name = change.kind, change.key
            case RecordsCleared():
                kept = {each_name: each for each_name, each in kept.items() if _kind(each) != change.kind}
                name = change.kind, None
        kept.pop(name, None)
        kept[name] = change
    keys: dict[str, list[int]] = {}
    for each in kept.values():
        if isinstance(each, RecordAdded):
            keys.setdefault(each.kind, []).append(each.key)
    for rows in keys.values():
        rows.sort(reverse=True)
    return [
        each for each in kept.values() if not isinstance(each, RecordAdded) or each.key >= _oldest(each, keys)
    ]


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
                self._waiting = merged(waiting + self._waiting)
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


def _oldest(row: RecordAdded, keys: Mapping[str, Sequence[int]]) -> int:
    """The key of the oldest row of its history that is kept. `keys`: per history, the newest first."""
    found = keys[row.kind]
    return found[min(row.keep, len(found)) - 1]


def _kind(change: Change) -> str | None:
    """The history that a row belongs to."""
    return change.kind if isinstance(change, RecordAdded) else None
