"""What one member has on disk: a copy beside the real disk, from which a crashed member restarts."""

from __future__ import annotations

from typing import assert_never

from heliosd.raft.messages import Entry, Snapshot
from heliosd.raft.state import RaftChange
from heliosd.raft.storage import HardState, LogSuffix, MemberState, SnapshotSaved


class Disk:
    """A member's durable state; `write` takes the changes that the real disk has."""

    __slots__ = ("_log", "_snapshot", "term", "vote")

    def __init__(self, state: MemberState) -> None:
        self.term = state.term
        self.vote = state.vote
        self._snapshot: Snapshot = state.snapshot
        self._log: list[Entry] = list(state.log)

    def write(self, change: RaftChange) -> None:
        match change:
            case HardState(term=term, vote=vote):
                self.term, self.vote = term, vote
            case LogSuffix(entries=entries):
                del self._log[entries[0].index - self._snapshot.index - 1 :]
                self._log.extend(entries)
            case SnapshotSaved(snapshot=snapshot, keeps_log=keeps_log):
                covered = snapshot.index - self._snapshot.index
                self._log = self._log[covered:] if keeps_log else []
                self._snapshot = snapshot
            case _:
                assert_never(change)

    @property
    def last_index(self) -> int:
        return self._snapshot.index + len(self._log)

    @property
    def snapshot_index(self) -> int:
        return self._snapshot.index

    def holds(self, index: int, term: int) -> bool:
        """Whether it has the entry of this index and term, or the snapshot that ends with it."""
        place = index - self._snapshot.index
        if place == 0:
            return self._snapshot.term == term
        return 0 < place <= len(self._log) and self._log[place - 1].term == term

    def read(self) -> MemberState:
        """What a restart finds."""
        return MemberState(term=self.term, vote=self.vote, snapshot=self._snapshot, log=tuple(self._log))
