"""What the members of a simulated cluster want written, gathered into one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from heliosd.raft.state import RaftChange, Write
from heliosd.raft.storage import LogSuffix, MemberForgotten
from heliosd.store.changes import Change

Pending = tuple[str, int, Write] | MemberForgotten
"""(member, its life, its write), or a member to be wiped."""


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Writes to make durable together, all or none."""

    changes: tuple[Change, ...]
    marks: tuple[tuple[str, int, int], ...]
    """(member, its life, the number of its last write)"""


def gather(pending: Iterable[Pending]) -> WriteBatch:
    """One batch of all these writes. Members are wiped first: who comes again under an old id begins empty."""
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
    """The same changes with log suffixes that follow each other made one."""
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
