"""What the members of a simulated cluster want written, gathered into one transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from msgspec import Struct

from heliosd.raft.state import NEVER, RaftChange, Write
from heliosd.raft.storage import HardState, LogSuffix, MemberForgotten
from heliosd.store.changes import Change

PendingWrite = tuple[str, int, Write]
"""A member, its incarnation, and what it wants written."""
Lasting = MemberForgotten | tuple[RaftChange, ...]
"""A member to be wiped, or the first disk of a new one. A refused one is written later."""


class MemberWrite(Struct, frozen=True):
    """All that one member wants written. `number`: of its last `Write`."""

    member: str
    incarnation: int
    number: int
    changes: tuple[RaftChange, ...]


class WriteBatch(Struct, frozen=True):
    """Writes to make durable together, all or none."""

    lasting: tuple[Lasting, ...]
    members: tuple[MemberWrite, ...]

    @property
    def changes(self) -> list[Change]:
        """In order. Members are wiped before another one gets their id."""
        changes: list[Change] = []
        for each in self.lasting:
            changes += [each] if isinstance(each, MemberForgotten) else each
        for member in self.members:
            changes += member.changes
        return changes


class PendingWrites:
    """Writes that are not on disk yet. One batch at a time is in flight."""

    def __init__(self) -> None:
        self._lasting: list[Lasting] = []
        self._lasting_due = 0
        """The tick from which they are written even if nothing else is."""
        self._pending: list[PendingWrite] = []
        self._slow: dict[str, deque[tuple[int, int, Write]]] = {}
        self.in_flight = False
        self.delayed: set[str] = set()
        """The members of the newest batch whose writes have waited for a slow disk."""

    def add(self, member: str, incarnation: int, write: Write, *, now: int, latency: int) -> None:
        """Its disk takes it after `latency` ticks, and in the order of the member's writes."""
        if latency or member in self._slow:
            self._slow.setdefault(member, deque()).append((now + latency, incarnation, write))
        else:
            self._pending.append((member, incarnation, write))

    def hasten(self, now: int, latency: Mapping[str, int]) -> None:
        """Disks are as slow as this from now on, in ticks; those that are not named take everything at once. What
        waits for a disk that is faster now need not wait any longer."""
        for member, writes in self._slow.items():
            due = now + latency.get(member, 0)
            self._slow[member] = deque(
                (min(at, due), incarnation, write) for at, incarnation, write in writes
            )

    def waits(self, member: str) -> bool:
        """Whether a write of this member is not in a batch yet."""
        return member in self._slow or any(write[0] == member for write in self._pending)

    def any_due(self, now: int) -> bool:
        """Whether something is to be written as soon as the disk is free."""
        return bool(self._pending or (self._lasting and now >= self._lasting_due))

    @property
    def any_slow(self) -> bool:
        """Whether a write waits for a slow disk."""
        return bool(self._slow)

    def next_ready(self) -> int:
        """The tick at which a slow disk takes a write, or a refused one is tried again; `NEVER` without one."""
        due = [writes[0][0] for writes in self._slow.values()]
        return min([*due, self._lasting_due] if self._lasting else due, default=NEVER)

    def create(self, disk: tuple[RaftChange, ...]) -> None:
        """Write the first disk of a new member, in one batch with what else is pending now."""
        self._lasting.append(disk)

    def drop(self, member: str) -> None:
        """A member crashed: what it had not handed to the disk is lost."""
        self._pending = [write for write in self._pending if write[0] != member]
        self._slow.pop(member, None)

    def forget(self, member: str) -> None:
        """A member is removed: wipe its disk."""
        self.drop(member)
        self._lasting.append(MemberForgotten(member))

    def up_to_term(self, member: str) -> tuple[PendingWrite, ...]:
        """The writes of this member up to the last one that has a term; none without such a one."""
        writes = [write for write in self._pending if write[0] == member]
        writes += [(member, incarnation, write) for _, incarnation, write in self._slow.get(member, ())]
        with_term = [place for place, write in enumerate(writes, 1) if _has_term(write[2])]
        return tuple(writes[: max(with_term, default=0)])

    def put_back(self, writes: tuple[PendingWrite, ...]) -> None:
        """Have the disk take these now, though their member was dropped."""
        self._pending += writes

    def take(self, now: int) -> WriteBatch | None:
        """The next batch, which is in flight from now on; None if nothing is to be written now."""
        if self.in_flight:
            raise RuntimeError("the last batch is neither written nor refused")
        if not (self._pending or self._lasting or self._slow):
            return None
        self.delayed = {name for name, writes in self._slow.items() if writes[0][0] <= now}
        for member in self.delayed:
            writes = self._slow[member]
            while writes and writes[0][0] <= now:
                _, incarnation, write = writes.popleft()
                self._pending.append((member, incarnation, write))
            if not writes:
                del self._slow[member]
        if not self.any_due(now):
            return None
        self.in_flight = True
        batch = WriteBatch(tuple(self._lasting), gather(self._pending))
        self._lasting.clear()
        self._pending.clear()
        return batch

    def landed(self) -> None:
        """The batch in flight is on disk."""
        self.in_flight = False

    def refused(self, batch: WriteBatch, again: int) -> None:
        """The batch in flight is not on disk. Its members restart; what lasts is tried again at this tick, or with
        the next write."""
        self.in_flight = False
        self._lasting_due = again
        self._lasting[:0] = batch.lasting


def _has_term(write: Write) -> bool:
    return any(isinstance(change, HardState) for change in write.changes)


def gather(pending: Iterable[PendingWrite]) -> tuple[MemberWrite, ...]:
    """The writes, given as (member, its incarnation, write), one of each member."""
    numbers: dict[tuple[str, int], int] = {}
    changes: dict[tuple[str, int], list[RaftChange]] = {}
    for name, incarnation, write in pending:
        numbers[name, incarnation] = write.number
        changes.setdefault((name, incarnation), []).extend(write.changes)
    return tuple(
        MemberWrite(*member, number, tuple(_joined(changes[member]))) for member, number in numbers.items()
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
