"""What the members of a simulated cluster want written, gathered into one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from heliosd.raft.state import RaftChange, Write
from heliosd.raft.storage import LogSuffix, MemberForgotten
from heliosd.store.changes import Change

Pending = tuple[str, int, Write] | MemberForgotten
"""(member, its incarnation, its write), or a member to be wiped."""


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Writes to make durable together, all or none."""

    changes: tuple[Change, ...]
    marks: tuple[tuple[str, int, int], ...]
    """(member, its incarnation, the number of its last write)"""


class PendingWrites:
    """Writes that are not on disk yet. One batch at a time is in flight."""

    def __init__(self) -> None:
        self._pending: list[Pending] = []
        self.in_flight = False

    def add(self, member: str, incarnation: int, write: Write) -> None:
        self._pending.append((member, incarnation, write))

    def drop(self, member: str) -> None:
        """A member crashed: what it had not handed to the disk is lost."""
        self._pending = [
            write for write in self._pending if isinstance(write, MemberForgotten) or write[0] != member
        ]

    def forget(self, member: str) -> None:
        """A member is removed: wipe its disk."""
        self.drop(member)
        self._pending.append(MemberForgotten(member))

    def take(self) -> WriteBatch | None:
        """The next batch, which is in flight from now on; None if nothing is to be written."""
        if self.in_flight:
            raise RuntimeError("the last batch is neither written nor refused")
        if not self._pending:
            return None
        self.in_flight = True
        batch = gather(self._pending)
        self._pending.clear()
        return batch

    def landed(self) -> None:
        """The batch in flight is on disk."""
        self.in_flight = False

    def refused(self, batch: WriteBatch) -> None:
        """The batch in flight is not on disk. Its members restart; a wipe is tried again."""
        self.in_flight = False
        self._pending += [change for change in batch.changes if isinstance(change, MemberForgotten)]


def gather(pending: Iterable[Pending]) -> WriteBatch:
    """One batch of all these writes. Members are wiped first: one that returns under an old id starts empty."""
    changes: list[Change] = []
    marks: dict[tuple[str, int], int] = {}
    by_incarnation: dict[tuple[str, int], list[RaftChange]] = {}
    for what in pending:
        if isinstance(what, MemberForgotten):
            changes.append(what)
        else:
            name, incarnation, write = what
            marks[name, incarnation] = write.number
            by_incarnation.setdefault((name, incarnation), []).extend(write.changes)
    for of_member in by_incarnation.values():
        changes += _joined(of_member)
    return WriteBatch(
        tuple(changes), tuple((name, incarnation, number) for (name, incarnation), number in marks.items())
    )


def _joined(changes: Iterable[RaftChange]) -> list[RaftChange]:
    """The same changes, with consecutive log suffixes joined."""
    joined: list[RaftChange] = []
    for change in changes:
        last = joined[-1] if joined else None
        if isinstance(change, LogSuffix) and isinstance(last, LogSuffix):
            overlap = change.entries[0].index - last.entries[0].index
            if 0 <= overlap <= len(last.entries):
                joined[-1] = LogSuffix(change.member, last.entries[:overlap] + change.entries)
                continue
        joined.append(change)
    return joined
