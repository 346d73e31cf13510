"""A member's state, and the operations on it that all rules are made of.

`election.py`, `leader.py` and `follower.py` decide and call these operations. What a step wants sent, written and
applied is collected, and returned once by `take_output`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from .log import Members, RaftLog
from .messages import Entry, Envelope, Message, Snapshot
from .progress import Progress
from .snapshot_chunks import CHUNK_BYTES, IncomingSnapshot
from .storage import HardState, LogSuffix, MemberState, SnapshotSaved

RaftRole = Literal["Leader", "Follower", "Candidate"]
NEVER = 1 << 62
"""A tick that is never reached."""
RaftChange = HardState | LogSuffix | SnapshotSaved


class IllegalTransition(Exception):
    """A step that Raft's rules exclude: a bug here, or a member that lost durable state."""


class Timing(Struct, frozen=True):
    """In ticks. Each election timeout is drawn from 1x to 2x `election`."""

    heartbeat: int
    election: int


class SoftState(NamedTuple):
    """A member's visible state, which is not stored. `leader` "" = it knows none."""

    role: RaftRole
    term: int
    leader: str


class Write(msgspec.Struct, frozen=True, gc=False):
    """Changes to make durable, in order. `RaftNode.persisted(number)`: this write and all before are durable."""

    number: int
    changes: tuple[RaftChange, ...]


class ConfirmedRead(msgspec.Struct, frozen=True, gc=False):
    """The read that was requested under `serial` sees all that was committed before it, once `index` is applied."""

    serial: int
    index: int


class HeldBack(msgspec.Struct, frozen=True, gc=False):
    """A message that must not leave before the write `after`, and all writes before it, are durable."""

    after: int
    envelope: Envelope


class Ready(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the caller has to do after a step."""

    sends: tuple[Envelope, ...] = ()
    """To send at once."""
    write: Write | None = None
    held_back: tuple[HeldBack, ...] = ()
    """Messages of this step that wait for a write, not to be sent: `RaftNode.persisted` returns them in `sends`."""
    installed: Snapshot | None = None
    """Replaces the state machine, before `committed` is applied to it."""
    committed: tuple[Entry, ...] = ()
    """To apply, in order; each entry is returned once."""
    reads: tuple[ConfirmedRead, ...] = ()
    """To answer once they are applied. Reads that are open when a leader steps down are never returned."""
    changed: SoftState | None = None
    """The soft state, if it has changed."""


NOTHING = Ready()


class NodeState:
    """The state of figure 2, and that of thesis 3.10, 4 and 9.6."""

    def __init__(
        self,
        member: str,
        state: MemberState,
        *,
        timing: Timing,
        rng: Random,
        now: int,
        applied: int = 0,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.id = member
        self.chunk_bytes = chunk_bytes
        self.timing = timing
        self.rng = rng

        self.term = state.term
        self.vote = state.vote
        self.log = RaftLog(state.snapshot, state.log)
        self.commit = max(applied, state.snapshot.index)
        self.durable_index = self.log.last_index
        """Up to here the log on disk equals the log in memory."""

        self.role: RaftRole = "Follower"
        self.leader = ""
        self.prevoting = False
        """A follower that has asked for pre-votes."""
        self.granted: set[str] = set()
        """Members that granted the current (pre-)vote."""
        self.election_due = 0
        self.lease_until = now + timing.election
        """Until then this member votes for no other leader, so that a leader that hears a majority can rely on it
        (thesis 4.2.3, 6.4.1). It also applies after a start: the leader before it may still rely on it."""

        self.incoming = IncomingSnapshot()
        self.progress: dict[str, Progress] = {}
        """As leader: the progress of each other member."""
        self.heartbeat_due = 0
        self.transfer_target = ""
        self.transfer_due = 0
        self.reads: deque[tuple[int, ConfirmedRead]] = deque()
        """As leader: reads by the tick of the request, until a majority confirms them."""
        self.confirmed_reads: list[ConfirmedRead] = []
        self.last_contact_due: tuple[Members | None, int] = (None, 0)
        """As leader: a membership, and a tick before which it need not step down."""

        self._sends: list[Envelope] = []
        self._answers: list[Envelope] = []
        self._changes: list[RaftChange] = []
        self._installed: Snapshot | None = None
        self._handed_out = self.commit
        self._reported = self.soft_state
        self._issued = 0
        self._held: deque[HeldBack] = deque()
        self._writes: deque[list[int]] = deque()  # [number, how far the log is durable once it is written]
        self.restart_election_timer(now)

    # Questions

    @property
    def soft_state(self) -> SoftState:
        return SoftState(self.role, self.term, self.leader)

    @property
    def membership(self) -> Mapping[str, str]:
        return self.log.membership

    @property
    def is_voter(self) -> bool:
        return self.id in self.log.membership

    @property
    def may_campaign(self) -> bool:
        """Voters may, and a member whose removal is not committed: perhaps it alone has that entry (thesis 4.2.2).

        After a restart the commit index is only the snapshot's, so the membership there says nothing.
        """
        if self.id in self.log.membership:
            return True
        uncommitted = self.log.membership_index > self.commit
        return uncommitted and self.id in self.log.previous_members.voters

    @property
    def all_durable(self) -> bool:
        """Whether all changes so far are on disk."""
        return not self._writes and not self._changes

    def others(self) -> list[str]:
        """All other members, which get the log."""
        return [member for member in self.log.members.all if member != self.id]

    def other_voters(self) -> list[str]:
        return [member for member in self.log.membership if member != self.id]

    # Terms and roles

    def follow(self, now: int, term: int, leader: str) -> None:
        """Become a follower in `term`, of `leader` if one is known."""
        if term < self.term:
            raise IllegalTransition(f"{self.id}: term {self.term} cannot go back to {term}")
        if term == self.term and self.leader and leader and self.leader != leader:
            raise IllegalTransition(f"{self.id}: two leaders in term {term}: {self.leader} and {leader}")
        was_leader = self.role == "Leader"
        if term > self.term:
            self.enter_term(term, vote="")
        self.role = "Follower"
        self.leader = leader
        self.prevoting = False
        self.granted.clear()
        self.progress.clear()
        self.last_contact_due = None, 0
        self.transfer_target = ""
        self.reads.clear()
        if was_leader:
            self.restart_election_timer(now)

    def enter_term(self, term: int, *, vote: str) -> None:
        """Enter a term with this vote; both are durable before any message depends on them."""
        self.term = term
        self.vote = vote
        self._changes.append(HardState(self.id, term, vote))

    def restart_election_timer(self, now: int) -> None:
        self.election_due = now + self.timing.election + int(self.rng.random() * self.timing.election)

    # The log

    def append(self, entries: Sequence[Entry]) -> None:
        """Make the log end with `entries`, truncating those in their place."""
        first = entries[0].index
        if first <= self.commit:
            raise IllegalTransition(f"{self.id}: committed entry {first} would be replaced")
        if first <= self.log.last_index:
            if self.role == "Leader":
                raise IllegalTransition(f"{self.id}: a leader never truncates its log (paper 5.3)")
            self.log.truncate(first)
            self._lower_durable(first - 1)
        self.log.extend(entries)
        self._changes.append(LogSuffix(self.id, tuple(entries)))

    def commit_to(self, index: int) -> None:
        """Everything up to `index` is committed. Never goes back."""
        if index > self.log.last_index:
            raise IllegalTransition(f"{self.id}: commit {index} is past the end {self.log.last_index}")
        self.commit = max(self.commit, index)

    def compact(self, data: bytes) -> Snapshot:
        """Replace all committed entries by a snapshot of the state machine after them."""
        index = self.commit
        term = self.log.term(index)
        members = self.log.members_at(index)
        snapshot = Snapshot(index, term, members.voters, data, members.learners)
        self.log.compact(snapshot)
        self._changes.append(SnapshotSaved(self.id, snapshot, keeps_log=True))
        return snapshot

    def install(self, snapshot: Snapshot) -> None:
        """Install the leader's snapshot (figure 13, steps 5 to 8), which is ahead of the commit here."""
        if snapshot.index <= self.commit:
            raise IllegalTransition(f"{self.id}: a snapshot at {snapshot.index} would undo {self.commit}")
        keeps_log = self.log.holds(snapshot.index, snapshot.term)
        if keeps_log:
            self.log.compact(snapshot)
        else:
            self._lower_durable(self.commit)
            self.log = RaftLog(snapshot, ())
        self.commit = self._handed_out = snapshot.index
        self._installed = snapshot
        self._changes.append(SnapshotSaved(self.id, snapshot, keeps_log=keeps_log))

    def _lower_durable(self, index: int) -> None:
        """Past `index`, what is or will be on disk differs from the log in memory."""
        self.durable_index = min(self.durable_index, index)
        for write in self._writes:
            write[1] = min(write[1], index)

    # Messages and writes

    def send(self, recipient: str, message: Message) -> None:
        """Send at once, even while writes are in flight: for messages that depend on no write."""
        self._sends.append(Envelope(self.id, recipient, message))

    def send_after_persist(self, recipient: str, message: Message) -> None:
        """Send once all changes so far are durable: votes and acknowledgements."""
        self._answers.append(Envelope(self.id, recipient, message))

    def settle(self, number: int) -> None:
        """The writes up to `number` are durable; messages that waited for them leave with the next output."""
        if number > self._issued:
            raise IllegalTransition(f"{self.id}: write {number} was never handed out")
        while self._writes and self._writes[0][0] <= number:
            self.durable_index = max(self.durable_index, self._writes.popleft()[1])
        while self._held and self._held[0].after <= number:
            self._sends.append(self._held.popleft().envelope)

    def take_output(self) -> Ready:
        """What has been collected since the last call."""
        write = None
        if self._changes:
            self._issued += 1
            write = Write(self._issued, tuple(self._changes))
            self._writes.append([self._issued, self.log.last_index])
            self._changes.clear()
        held_back: tuple[HeldBack, ...] = ()
        if self._answers:
            if self._writes:
                held_back = tuple([HeldBack(self._issued, answer) for answer in self._answers])
                self._held += held_back
            else:
                self._sends += self._answers
            self._answers.clear()
        sends = tuple(self._sends)
        self._sends.clear()
        committed: tuple[Entry, ...] = ()
        if self._handed_out < self.commit:
            committed = self.log.slice(self._handed_out + 1, self.commit)
            self._handed_out = self.commit
        installed, self._installed = self._installed, None
        changed, (role, term, leader) = None, self._reported
        if self.role != role or self.term != term or self.leader != leader:
            self._reported = changed = self.soft_state
        reads = tuple(self.confirmed_reads)
        self.confirmed_reads.clear()
        if not (sends or write or held_back or committed or installed or changed or reads):
            return NOTHING
        return Ready(
            sends=sends,
            write=write,
            held_back=held_back,
            installed=installed,
            committed=committed,
            reads=reads,
            changed=changed,
        )
