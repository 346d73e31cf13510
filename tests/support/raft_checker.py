"""Raft's invariants, checked after every step of every member of a simulated cluster.

The checker sees only what members send, write, apply and show. It keeps its own record of votes, leaders, committed
entries and memberships, and shares no rule with `heliosd/raft/`. Each invariant has a name, so that a run can be
made without it: that shows that none is idle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from heliosd.raft.log import Members, decode_membership
from heliosd.raft.messages import (
    AppendAnswer,
    AppendEntries,
    Entry,
    Envelope,
    InstallAnswer,
    InstallSnapshot,
    PreVote,
    RequestVote,
    Snapshot,
    VoteAnswer,
)
from heliosd.raft.node import RaftNode
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.member import SimulatedMember
from heliosd.raft.simulation.observations import (
    EntryApplied,
    Forgotten,
    Installed,
    MemberStarted,
    Observation,
)
from heliosd.raft.state import NOTHING, Ready
from heliosd.raft.storage import LogSuffix, SnapshotSaved

ELECTION_SAFETY = "a term has one leader, whoever is asked"
MAJORITY_OF_VOTES = "a leader has the votes of a majority"
APPEND_ONLY = "a leader only appends to its log"
LOG_MATCHING = "logs with one entry in common are the same before it"
COMPLETENESS = "a leader has every entry that was committed before its term"
MACHINE_SAFETY = "members apply the same entry at an index"
TERM_FORWARD = "a term never goes back"
COMMIT_FORWARD = "a commit index never goes back"
SNAPSHOT_FORWARD = "a snapshot never moves the commit index back"
INDICES = "applied <= commit <= last"
ONE_VOTE = "a member votes once a term, across restarts"
OWN_TERM = "only an entry of its own term moves a leader's commit index"
MAJORITY_OF_DISKS = "what is committed is on the disks of a majority"
ONE_CHANGE = "one uncommitted membership change at a time"
CHANGE_AFTER_COMMIT = "no membership change before the term has a commit"
BY_ONE = "a membership changes by one member"
MEMBERSHIP = "the membership in force is that of the log, also after a truncation"
PREVOTE = "a pre-vote changes nothing"
LEASE = "a member that hears a leader votes for no other"
CHECK_QUORUM = "a leader without a majority steps down within an election timeout"
TRANSFER = "no proposals while leadership is transferred"
SNAPSHOT = "a snapshot holds the state and the membership at its index"
PUBLISHED = "what is published is what was applied, in order"
LEARNER = "a learner does not campaign"
PROMOTION = "a learner is promoted once it holds what is committed"
PERSIST_FIRST = "what is acknowledged is on disk"
READS = "a confirmed read misses nothing that was committed before it"
LIVENESS = "a healed cluster makes progress within ten election timeouts"

INVARIANTS = (
    *(ELECTION_SAFETY, MAJORITY_OF_VOTES, APPEND_ONLY, LOG_MATCHING, COMPLETENESS, MACHINE_SAFETY),
    *(TERM_FORWARD, COMMIT_FORWARD, SNAPSHOT_FORWARD, INDICES, ONE_VOTE, OWN_TERM, MAJORITY_OF_DISKS),
    *(ONE_CHANGE, CHANGE_AFTER_COMMIT, BY_ONE, MEMBERSHIP, PREVOTE, LEASE, CHECK_QUORUM, TRANSFER),
    *(LEARNER, PROMOTION, SNAPSHOT, PUBLISHED, PERSIST_FIRST, READS, LIVENESS),
)


class Broken(AssertionError):
    """An invariant does not hold. `witness`: the values that show it."""

    def __init__(self, invariant: str, witness: str) -> None:
        super().__init__(f"{invariant}: {witness}")
        self.invariant = invariant
        self.witness = witness


class _Seen:
    """A member after its last step."""

    __slots__ = (
        *("applied", "commit", "deadline", "heard", "incarnation", "last", "last_term", "leader", "lease"),
        *("memberships", "quorum_until", "role", "term", "transfer", "vote", "voters"),
    )

    def __init__(self, member: SimulatedMember) -> None:
        raft = member.raft
        self.incarnation = member.incarnation
        self.lease = 0
        self.heard: dict[str, int] = {}
        self.quorum_until = 0
        self.voters: Mapping[str, str] = {}
        state = member.disk.read()
        self.memberships = [(state.snapshot.index, _members(state.snapshot))]
        _follow(self.memberships, state.log)
        self.update(raft, raft.term, raft.role, raft.commit, raft.log.last_index)

    def update(self, raft: RaftNode, term: int, role: str, commit: int, last: int) -> None:
        self.term = term
        self.role = role
        self.commit = commit
        self.last = last
        self.last_term = raft.log.last_term
        self.transfer = raft.transfer_target
        self.leader = raft.leader
        self.vote = raft.vote
        self.deadline = raft.deadline if role != "Leader" else None


def _members(snapshot: Snapshot) -> Members:
    return Members(snapshot.membership, snapshot.learners)


def _follow(memberships: list[tuple[int, Members]], entries: Iterable[Entry]) -> None:
    memberships.extend(
        (entry.index, decode_membership(entry.data)) for entry in entries if entry.kind == "membership"
    )


class Checker:
    """Checks every step of the cluster that it is attached to. Raises `Broken`."""

    def __init__(
        self,
        without: Collection[str] = (),
        state_of: Callable[[bytes], object] = lambda data: int(data or b"0"),
    ) -> None:
        """`state_of`: of a snapshot's data, what its state machine returned for the last command in it."""
        self.without = frozenset(without)
        self._state_of = state_of
        self.committed: dict[int, Entry] = {}
        """By index: all entries that any member has applied."""
        self.last_committed = 0
        self._committed_in: dict[int, int] = {}
        self._memberships: list[tuple[int, Members]] = []
        self._states: dict[int, object] = {}
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._all_votes: set[tuple[str, int, str]] = set()
        self._entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        self._reads: dict[int, int] = {}
        self._next: dict[str, int] = {}
        self._seen: dict[str, _Seen] = {}

    def attach(self, cluster: SimulatedCluster) -> None:
        """Check this cluster from now on: a new one, or one that has started from the disks of the last one."""
        self.cluster = cluster
        self._election = cluster.options.timing.election
        self._seen = {name: _Seen(member) for name, member in cluster.members.items()}
        self._next = {name: member.raft.commit + 1 for name, member in cluster.members.items()}
        if not self._memberships:
            first = next(iter(cluster.members.values())).raft.log.snapshot
            self._memberships.append((first.index, _members(first)))
            self.last_committed = first.index
            self._states[first.index] = 0
        cluster.inspect = self.step

    def read_requested(self, serial: int) -> None:
        """A read was requested: it must see what is committed now."""
        self._reads[serial] = self.last_committed

    def _fail(self, invariant: str, *witness: object) -> None:
        if invariant not in self.without:
            raise Broken(invariant, ", ".join(map(str, witness)))

    def require(self, holds: bool, invariant: str, *witness: object) -> None:
        if not holds:
            self._fail(invariant, *witness)

    # One step of one member

    def step(self, member: SimulatedMember, ready: Ready, envelope: Envelope | None) -> None:
        raft = member.raft
        name = raft.id
        seen = self._seen[name]
        term, role, commit, last = raft.term, raft.role, raft.commit, raft.log.last_index
        if term < seen.term:
            self._fail(TERM_FORWARD, name, seen.term, term)
        if commit < seen.commit:
            installing = envelope is not None and isinstance(envelope.message, InstallSnapshot)
            self._fail(SNAPSHOT_FORWARD if installing else COMMIT_FORWARD, name, seen.commit, commit)
        if commit > last:
            self._fail(INDICES, name, f"commit {commit}", f"last {last}")
        if ready is not NOTHING:
            self._ready(member, seen, ready)
        if envelope is not None:
            self._received(member, seen, ready, envelope)
        elif role != "Follower" and raft.is_learner:
            self._fail(LEARNER, name, role)
        elif term != seen.term and role == "Follower":
            self._fail(PREVOTE, name, f"term {seen.term} became {term} without a campaign")
        leader = raft.leader
        if leader and (leader != seen.leader or term != seen.term):
            known = self._leaders.setdefault(term, leader)
            if known != leader:
                self._fail(ELECTION_SAFETY, f"{name} in term {term}", known, leader)
        if role == "Leader":
            self._leads(member, seen, term, commit, last)
        seen.update(raft, term, role, commit, last)

    def _ready(self, member: SimulatedMember, seen: _Seen, ready: Ready) -> None:
        raft = member.raft
        if ready.write is not None:
            for change in ready.write.changes:
                if isinstance(change, LogSuffix):
                    self._appended(raft, seen, change.entries)
                elif isinstance(change, SnapshotSaved):
                    self._snapshot(raft.id, seen, change)
            index, members = seen.memberships[-1]
            log = raft.log
            if log.membership_index != index or log.members != members:
                self._fail(MEMBERSHIP, raft.id, f"{log.members} in place of {members}")
        if ready.committed:
            self._commits(raft, ready.committed)
        for envelope in ready.sends:
            self._sends(member, seen, envelope)
        for read in ready.reads:
            if read.index < self._reads[read.serial]:
                self._fail(READS, raft.id, f"read at {read.index}, {self._reads[read.serial]} was committed")

    def _appended(self, raft: RaftNode, seen: _Seen, entries: tuple[Entry, ...]) -> None:
        known = self._entries
        for entry in entries:
            index = entry.index
            if index <= raft.log.snapshot.index or index > raft.log.last_index:
                continue
            found = known.setdefault((index, entry.term), (entry, raft.log.term(index - 1)))
            if found[0] != entry or found[1] != raft.log.term(index - 1):
                self._fail(LOG_MATCHING, raft.id, entry, found)
        if raft.role == "Leader" and raft.term == seen.term and seen.role == "Leader":
            self._proposed(raft, seen, entries)
        first = entries[0].index
        while len(seen.memberships) > 1 and seen.memberships[-1][0] >= first:
            seen.memberships.pop()
        _follow(seen.memberships, entries)

    def _proposed(self, raft: RaftNode, seen: _Seen, entries: tuple[Entry, ...]) -> None:
        if seen.transfer:
            self._fail(TRANSFER, raft.id, f"to {seen.transfer}", entries)
        for entry in entries:
            if entry.kind == "membership":
                index, old = seen.memberships[-1]
                new = decode_membership(entry.data)
                self.require(index <= seen.commit, ONE_CHANGE, raft.id, entry, f"{index} is not committed")
                of = raft.log.term(seen.commit)
                self.require(of == raft.term, CHANGE_AFTER_COMMIT, raft.id, entry, f"commit of term {of}")
                moved = (old.voters.keys() ^ new.voters.keys()) | (old.learners.keys() ^ new.learners.keys())
                self.require(len(moved) == 1, BY_ONE, raft.id, old, new)
                for name in new.voters.keys() - old.voters.keys():
                    disk = self.cluster.members[name].disk
                    holds = seen.commit <= disk.last_index
                    self.require(holds, PROMOTION, name, f"disk {disk.last_index}", f"commit {seen.commit}")

    def _snapshot(self, name: str, seen: _Seen, change: SnapshotSaved) -> None:
        snapshot = change.snapshot
        members = [each for each in self._memberships if each[0] <= snapshot.index][-1][1]
        if _members(snapshot) != members:
            self._fail(SNAPSHOT, name, snapshot, f"not {members}")
        entry = self.committed.get(snapshot.index)
        if entry is not None and (
            snapshot.term != entry.term or self._state_of(snapshot.data) != self._states[snapshot.index]
        ):
            self._fail(SNAPSHOT, name, snapshot, entry, self._states[snapshot.index])
        later = seen.memberships if change.keeps_log else []
        seen.memberships = [
            (snapshot.index, _members(snapshot)),
            *(each for each in later if each[0] > snapshot.index),
        ]

    def _commits(self, raft: RaftNode, entries: tuple[Entry, ...]) -> None:
        if entries[-1].index > raft.commit:
            self._fail(INDICES, raft.id, f"applies {entries[-1].index}", f"commit {raft.commit}")
        for entry in entries:
            index = entry.index
            if index > self.last_committed:
                self.committed[index] = entry
                self.last_committed = self._committed_in[raft.term] = index
                _follow(self._memberships, (entry,))
            elif self.committed.get(index) != entry:
                self._fail(MACHINE_SAFETY, raft.id, entry, self.committed.get(index))

    # Messages

    def _sends(self, member: SimulatedMember, seen: _Seen, envelope: Envelope) -> None:
        message: Any = envelope.message
        raft, disk = member.raft, member.disk
        kind = type(message)
        if kind is AppendAnswer or kind is InstallAnswer:
            match = message.match_index
            if match > disk.snapshot_index and message.term == raft.term:
                term = raft.log.term(match) if match >= raft.log.snapshot.index else None
                if disk.last_index < match or (term is not None and not disk.holds(match, term)):
                    self._fail(PERSIST_FIRST, raft.id, message, f"the disk ends at {disk.last_index}")
        elif kind is RequestVote:
            self._voted(member, message.term, raft.id)
        elif kind is VoteAnswer and message.granted:
            self._voted(member, message.term, envelope.recipient)

    def _voted(self, member: SimulatedMember, term: int, candidate: str) -> None:
        name, disk = member.raft.id, member.disk
        first = self._votes.setdefault((name, term), candidate)
        if first != candidate:
            self._fail(ONE_VOTE, name, f"term {term}", first, candidate)
        self._all_votes.add((name, term, candidate))
        if disk.term < term or (disk.term == term and disk.vote != candidate):
            self._fail(PERSIST_FIRST, name, f"vote for {candidate} in {term}", f"{disk.vote} in {disk.term}")

    def _received(self, member: SimulatedMember, seen: _Seen, ready: Ready, envelope: Envelope) -> None:
        message: Any = envelope.message
        raft = member.raft
        now = member.time(self.cluster.now)
        kind = type(message)
        if kind is AppendEntries or kind is InstallSnapshot:
            if message.term == raft.term:
                seen.lease = now + self._election
        elif kind is PreVote:
            before = seen.term, seen.vote, seen.role, seen.leader, seen.commit, seen.last, seen.deadline
            deadline = raft.deadline if raft.role != "Leader" else None
            after = raft.term, raft.vote, raft.role, raft.leader, raft.commit, raft.log.last_index, deadline
            if before != after or ready.write is not None:
                self._fail(PREVOTE, raft.id, before, after)
        elif kind is RequestVote:
            heard = seen.role == "Leader" or now < seen.lease
            if raft.term > seen.term and heard and not message.transfer:
                self._fail(LEASE, raft.id, f"term {seen.term} became {raft.term}")
        elif message.term == raft.term:
            seen.heard[envelope.sender] = now

    # A leader

    def _leads(self, member: SimulatedMember, seen: _Seen, term: int, commit: int, last: int) -> None:
        raft = member.raft
        now = member.time(self.cluster.now)
        name, log = raft.id, raft.log
        voters = log.membership
        if seen.role != "Leader" or term != seen.term:
            self._elected(raft, term)
            seen.heard, seen.voters = {}, {}
            seen.quorum_until = now + self._election
        elif last != seen.last or log.last_term != seen.last_term:
            kept = seen.last <= log.snapshot.index or (
                last >= seen.last and log.term(seen.last) == seen.last_term
            )
            self.require(kept, APPEND_ONLY, name, f"entry {seen.last} of term {seen.last_term} is gone")
        if commit > seen.commit:
            if log.term(commit) != term:
                self._fail(OWN_TERM, name, f"entry {commit} of {log.term(commit)} in term {term}")
            members = self.cluster.members
            disks = [members[voter].disk for voter in voters if voter in members]
            holds = sum(
                disk.snapshot_index > commit or disk.holds(commit, log.term(commit)) for disk in disks
            )
            if holds <= len(voters) // 2:
                self._fail(MAJORITY_OF_DISKS, name, f"entry {commit} is on {holds} of {len(voters)}")
        if member.running and (now > seen.quorum_until or voters is not seen.voters):
            changed = voters is not seen.voters
            heard = {voter: seen.heard.get(voter, now) if voter in seen.voters else now for voter in voters}
            seen.heard, seen.voters = heard, voters
            times = sorted((now if voter == name else heard[voter] for voter in voters), reverse=True)
            contact = times[len(times) // 2]
            seen.quorum_until = contact + self._election
            if changed:  # it steps down when its timer fires, which is now
                seen.quorum_until = max(seen.quorum_until, now)
            elif now > seen.quorum_until:
                self._fail(CHECK_QUORUM, name, f"a majority answered {now - contact} ticks ago")

    def _elected(self, raft: RaftNode, term: int) -> None:
        name, log = raft.id, raft.log
        votes = [voter for voter in log.membership if voter == name or (voter, term, name) in self._all_votes]
        if len(votes) <= len(log.membership) // 2:
            self._fail(MAJORITY_OF_VOTES, name, f"term {term}", f"{votes} of {sorted(log.membership)}")
        index = max((index for at, index in self._committed_in.items() if at < term), default=0)
        if index > log.snapshot.index and not log.holds(index, self.committed[index].term):
            self._fail(COMPLETENESS, name, f"term {term}", self.committed[index], f"last {log.last_index}")

    # What is published

    def observe(self, observations: Iterable[Observation]) -> None:
        """Take what the cluster has reported since the last time."""
        for each in observations:
            if isinstance(each, EntryApplied):
                self._published(each)
            elif isinstance(each, Installed):
                self._next[each.member] = each.snapshot.index + 1
            elif isinstance(each, MemberStarted):
                self._next[each.member] = each.applied + 1
                if each.member in self.cluster.members:
                    self._seen[each.member] = _Seen(self.cluster.members[each.member])
            elif isinstance(each, Forgotten):
                self._votes = {vote: to for vote, to in self._votes.items() if vote[0] != each.member}

    def _published(self, applied: EntryApplied) -> None:
        index = applied.entry.index
        if index != self._next[applied.member]:
            self._fail(PUBLISHED, applied.member, f"{index} after {self._next[applied.member] - 1}")
        self._next[applied.member] = index + 1
        result = applied.result if applied.entry.kind == "command" else self._states.get(index - 1)
        if self._states.setdefault(index, result) != result:
            self._fail(MACHINE_SAFETY, applied.member, index, result, self._states[index])
