"""One Raft member without IO: messages, ticks and proposals in, a `Ready` out.

A member follows, campaigns, or leads:

    Follower --election timeout--> (asks for pre-votes) --majority would vote--> Candidate
    Candidate --majority of votes--> Leader
    Leader --no majority heard for an election timeout, or a higher term--> Follower

1. It has no clock, disk or network. A tick is an integer that never goes back, in a unit that the caller chooses.
   Random numbers come from a `random.Random`, so the same calls give the same outputs.
2. The caller carries out each `Ready`: it sends `sends`, writes `write` and then calls `persisted`, and applies
   `committed`.
3. Acknowledgements and votes are held back until the state that they depend on is durable: `Ready.held_back` shows
   which message waits for which write. A leader's entries are sent at once, and count on its own disk as on any
   other (thesis 10.2.1).
4. A restart is a new `RaftNode` from what was written.

The rules are in `election.py`, `leader.py`, `follower.py`, `log.py`, `quorum.py` and `membership.py`; they work on
the state in `state.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import assert_never

from . import contact, election, follower, leader, membership
from .log import Members, RaftLog
from .membership import ChangeRefused
from .messages import (
    AppendAnswer,
    AppendEntries,
    Envelope,
    InstallAnswer,
    InstallSnapshot,
    PreVote,
    PreVoteAnswer,
    RequestVote,
    Snapshot,
    TimeoutNow,
    VoteAnswer,
)
from .progress import Progress
from .snapshot_chunks import CHUNK_BYTES
from .state import IllegalTransition, NodeState, RaftRole, Ready, SoftState, Timing
from .storage import MemberState


class RaftNode:
    """A member of a cluster. Methods raise `IllegalTransition` if a caller breaks Raft's rules."""

    __slots__ = ("_node", "_now")

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
        """`applied`: the state machine already has the committed log up to there; otherwise it is the
        snapshot's. `chunk_bytes`: of a snapshot, to be sent at once."""
        self._node = NodeState(
            member, state, timing=timing, rng=rng, now=now, applied=applied, chunk_bytes=chunk_bytes
        )
        self._now = now

    # Input

    def step(self, now: int, envelope: Envelope) -> Ready:
        """Handle a message, which may be late, repeated or out of order."""
        node = self._at(now)
        if envelope.recipient != node.id:
            raise IllegalTransition(f"{node.id}: got a message for {envelope.recipient}")
        sender = envelope.sender
        match envelope.message:
            case AppendEntries() as append:
                follower.on_append(node, now, sender, append)
            case AppendAnswer() as answer:
                leader.on_append_answer(node, now, sender, answer)
            case PreVote() as request:
                election.on_prevote(node, now, sender, request)
            case PreVoteAnswer() as answer:
                election.on_prevote_answer(node, now, sender, answer)
            case RequestVote() as request:
                election.on_request_vote(node, now, sender, request)
            case VoteAnswer() as answer:
                election.on_vote_answer(node, now, sender, answer)
            case InstallSnapshot() as install:
                follower.on_install(node, now, sender, install)
            case InstallAnswer() as answer:
                leader.on_install_answer(node, now, sender, answer)
            case TimeoutNow() as order:
                election.on_timeout_now(node, now, sender, order)
            case message:
                assert_never(message)
        return node.take_output()

    def tick(self, now: int) -> Ready:
        """Do what is due by now: nothing before `deadline`."""
        node = self._at(now)
        if node.role == "Leader":
            leader.on_tick(node, now)
        elif node.may_campaign and node.election_due <= now:
            election.start_prevote(node, now)
        return node.take_output()

    def persisted(self, now: int, number: int) -> Ready:
        """The writes up to `number` are durable: messages that waited for them are sent, and entries count."""
        node = self._at(now)
        node.settle(number)
        election.own_vote_durable(node, now)
        if node.role == "Leader":
            leader.advance_commit(node, now)
        return node.take_output()

    # Proposals

    def propose(self, now: int, commands: Sequence[bytes]) -> Ready:
        """Append commands to the log, from `last_index + 1` on. Raises `ChangeRefused`: nothing was appended."""
        node = self._leading(now)
        if commands:
            leader.append_own(node, now, "command", commands)
        return node.take_output()

    def propose_membership(self, now: int, members: Members) -> Ready:
        """Append a membership that differs by one member from the one in force (thesis 4.1). Raises
        `ChangeRefused`. A learner in it is promoted once it has caught up (thesis 4.2.1)."""
        node = self._leading(now)
        membership.check_change(node, members)
        leader.change_membership(node, now, members)
        return node.take_output()

    def transfer(self, now: int, target: str) -> Ready:
        """Hand leadership to `target` ("": the most advanced other voter); proposals are refused meanwhile.

        It is abandoned after an election timeout. Raises `ChangeRefused`.
        """
        node = self._leading(now)
        if not target:
            target = max(node.other_voters(), key=lambda member: node.progress[member].match, default="")
        if target in node.log.members.learners:
            raise ChangeRefused("busy")
        if target not in node.progress:
            raise ChangeRefused("unknown_member")
        node.transfer_target = target
        node.transfer_due = now + node.timing.election
        leader.hand_over(node)
        return node.take_output()

    def read(self, now: int, serial: int) -> Ready:
        """Request a read that misses nothing committed before (thesis 6.4): see `Ready.reads`. Raises
        `ChangeRefused`."""
        node = self._at(now)
        if node.role != "Leader":
            raise ChangeRefused("not_leader")
        contact.request_read(node, now, serial)
        return node.take_output()

    def compact(self, now: int, data: bytes) -> tuple[Snapshot, Ready]:
        """Replace all committed entries by a snapshot; `data` is the state machine after them."""
        node = self._at(now)
        snapshot = node.compact(data)
        return snapshot, node.take_output()

    def _at(self, now: int) -> NodeState:
        if now < self._now:
            raise IllegalTransition(f"{self._node.id}: time goes back from {self._now} to {now}")
        self._now = now
        return self._node

    def _leading(self, now: int) -> NodeState:
        node = self._at(now)
        if node.role != "Leader":
            raise ChangeRefused("not_leader")
        if node.transfer_target:
            raise ChangeRefused("transferring")
        return node

    # State

    @property
    def deadline(self) -> int | None:
        """The next tick at which `tick` has something to do, if no message comes before."""
        node = self._node
        if node.role != "Leader":
            return node.election_due if node.may_campaign else None
        due = node.heartbeat_due
        if node.transfer_target:
            due = min(due, node.transfer_due)
        return contact.earlier_contact_due(node, due)

    @property
    def id(self) -> str:
        return self._node.id

    @property
    def soft_state(self) -> SoftState:
        return self._node.soft_state

    @property
    def role(self) -> RaftRole:
        return self._node.role

    @property
    def term(self) -> int:
        return self._node.term

    @property
    def vote(self) -> str:
        return self._node.vote

    @property
    def is_learner(self) -> bool:
        """Whether it has no vote yet, as far as it knows."""
        return self._node.id in self._node.log.members.learners

    @property
    def leader(self) -> str:
        return self._node.leader

    @property
    def commit(self) -> int:
        """Everything up to here is committed, and was returned to be applied."""
        return self._node.commit

    @property
    def transfer_target(self) -> str:
        """The member to which leadership is being transferred; "" = none."""
        return self._node.transfer_target

    @property
    def log(self) -> RaftLog:
        """To be read only."""
        return self._node.log

    @property
    def progress(self) -> Mapping[str, Progress]:
        """Of each other member, while this one leads. To be read only."""
        return self._node.progress
