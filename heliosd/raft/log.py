"""One member's log: a snapshot and the entries after it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from .messages import Entry, Snapshot


def is_up_to_date(last_term: int, last_index: int, *, than_term: int, than_index: int) -> bool:
    """Whether a log that ends in (last_term, last_index) is at least as up to date as another (paper 5.4.1)."""
    return (last_term, last_index) >= (than_term, than_index)


class Members(NamedTuple):
    """A membership: id -> address."""

    voters: Mapping[str, str]
    learners: Mapping[str, str]
    """They get the log and have no vote (thesis 4.2.1)."""

    @property
    def all(self) -> dict[str, str]:
        return {**self.voters, **self.learners}


def encode_membership(voters: Mapping[str, str], learners: Mapping[str, str] | None = None) -> bytes:
    """The data of a `membership` entry: the members from this entry on. Without learners: the voters alone."""
    if not learners:
        return msgspec.json.encode(dict(voters))
    return msgspec.json.encode({"voters": dict(voters), "learners": dict(learners)})


def decode_membership(data: bytes) -> Members:
    decoded = msgspec.json.decode(data, type=dict[str, str | dict[str, str]])
    voters, learners = decoded.get("voters"), decoded.get("learners")
    if isinstance(voters, dict) and isinstance(learners, dict):
        return Members(voters, learners)
    return Members({name: address for name, address in decoded.items() if isinstance(address, str)}, {})


class RaftLog:
    """Entries without a hole, from `snapshot.index + 1` on.

    The latest membership in it is in force once appended, committed or not (thesis 4.1). If its entry is truncated,
    the one before is in force again.
    """

    __slots__ = ("_entries", "_memberships", "snapshot")

    def __init__(self, snapshot: Snapshot, entries: Sequence[Entry]) -> None:
        self.snapshot = snapshot
        self._entries: list[Entry] = []
        self._memberships = [(snapshot.index, Members(snapshot.membership, snapshot.learners))]
        self.extend(entries)

    @property
    def first_index(self) -> int:
        """The index after the snapshot: of the first entry, if there is one."""
        return self.snapshot.index + 1

    @property
    def last_index(self) -> int:
        return self.snapshot.index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.snapshot.term

    @property
    def membership(self) -> Mapping[str, str]:
        """The voters in force: id -> address."""
        return self._memberships[-1][1].voters

    @property
    def members(self) -> Members:
        """The membership in force. Another object once it has changed."""
        return self._memberships[-1][1]

    @property
    def previous_members(self) -> Members:
        """The membership before the one in force, as far as the log still has it."""
        return self._memberships[-2:][0][1]

    def memberships_after(self, index: int) -> list[Members]:
        """The memberships of all entries after `index`."""
        return [membership for at, membership in self._memberships if at > index]

    @property
    def membership_index(self) -> int:
        """The index of the entry with the membership in force."""
        return self._memberships[-1][0]

    def members_at(self, index: int) -> Members:
        """The membership as of `index`, which must not be before the snapshot."""
        place = bisect_right(self._memberships, index, key=lambda change: change[0])
        return self._memberships[place - 1][1]

    def term(self, index: int) -> int:
        """The term of the entry at `index`, or of the snapshot that ends there. IndexError anywhere else."""
        place = index - self.snapshot.index
        if place == 0:
            return self.snapshot.term
        if place < 0:
            raise IndexError(f"entry {index} is in the snapshot at {self.snapshot.index}")
        return self._entries[place - 1].term

    def holds(self, index: int, term: int) -> bool:
        """Whether it has an entry of this index and term; then all before it are the same too (paper 5.3)."""
        return self.snapshot.index <= index <= self.last_index and self.term(index) == term

    def slice(self, first: int, last: int) -> tuple[Entry, ...]:
        """The entries `first` to `last` inclusive, as far as they exist."""
        if first < self.first_index:
            raise IndexError(f"entry {first} is in the snapshot at {self.snapshot.index}")
        return tuple(self._entries[first - self.first_index : last - self.snapshot.index])

    def conflict(self, index: int) -> tuple[int, int]:
        """The (conflict_index, conflict_term) for a leader whose entry at `index` does not match; see
        AppendAnswer."""
        if index > self.last_index:
            return self.last_index + 1, 0
        term = self.term(index)
        while index > self.first_index and self.term(index - 1) == term:
            index -= 1
        return index, term

    def last_of_term(self, term: int, *, at_most: int) -> int:
        """The last index up to `at_most` whose entry is of `term`; 0 if there is none."""
        index = min(at_most, self.last_index)
        while index >= self.snapshot.index:
            found = self.term(index)
            if found == term:
                return index
            if found < term:  # terms never fall along a log
                break
            index -= 1
        return 0

    def missing(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """The part of `entries` that is missing here: from the first conflict, or the first beyond the end."""
        for place, entry in enumerate(entries):
            if entry.index > self.last_index or (
                entry.index > self.snapshot.index and self.term(entry.index) != entry.term
            ):
                return entries[place:]
        return ()

    def extend(self, entries: Sequence[Entry]) -> None:
        """Append. The first index must be one past the end."""
        if entries and entries[0].index != self.last_index + 1:
            raise IndexError(f"entry {entries[0].index} cannot follow {self.last_index}")
        self._entries.extend(entries)
        for entry in entries:
            if entry.kind == "membership":
                self._memberships.append((entry.index, decode_membership(entry.data)))

    def truncate(self, index: int) -> None:
        """Drop everything from `index` on."""
        del self._entries[index - self.first_index :]
        while len(self._memberships) > 1 and self._memberships[-1][0] >= index:
            self._memberships.pop()

    def compact(self, snapshot: Snapshot) -> None:
        """Replace the entries up to the snapshot's index, which must exist, by the snapshot."""
        if not self.first_index <= snapshot.index <= self.last_index:
            raise IndexError(f"no entry {snapshot.index} to compact up to")
        del self._entries[: snapshot.index - self.snapshot.index]
        later = [change for change in self._memberships if change[0] > snapshot.index]
        self._memberships = [(snapshot.index, Members(snapshot.membership, snapshot.learners)), *later]
        self.snapshot = snapshot
