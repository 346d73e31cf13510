"""One Raft member as a value: messages, ticks and requests in, an `Output` out.

Theory of operation. A member follows, campaigns, or leads:

    Follower --election timeout--> (asks for pre-votes) --majority would vote--> Candidate
    Candidate --majority of votes--> Leader
    Leader --no majority heard for an election timeout, or a higher term--> Follower

There is no clock, no disk and no network in here. A tick is a whole number that never goes back, in a unit that
the caller chooses; chance comes as a `random.Random`, so the same calls give the same outputs. The caller carries
out each `Output`: it sends `sends`, writes `write` and then calls `persisted`, and applies `committed`.
Acknowledgements and votes stay in here until what they promise is durable; entries of a leader leave at once, and
its own disk counts for a commit like any other (thesis 10.2.1). A restart is a new `Raft` made of what was
written.

The rules are in `election.py`, `replication.py`, `following.py`, and the small ones in `log.py`, `quorum.py` and
`membership.py`; `node.py` is the state they work on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import assert_never

from . import election, follower, leader, membership
from .log import RaftLog
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
from .state import IllegalTransition, NodeState, RaftRole, Ready, SoftState, Timing
from .storage import MemberState


class RaftNode:
    """A member of a cluster. Methods raise `IllegalTransition` where Raft's rules are broken from outside."""

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
    ) -> None:
        """`applied`: the state machine holds the log up to there, which is committed; else it is the snapshot."""
        self._node = NodeState(member, state, timing=timing, rng=rng, now=now, applied=applied)
        self._now = now

    # What happens to it

    def step(self, now: int, envelope: Envelope) -> Ready:
        """Take a message. Late, repeated and reordered ones are as good as any."""
        node = self._at(now)
        if envelope.recipient != node.id:
            raise IllegalTransition(f"{node.id}: got a message for {envelope.recipient}")
        sender = envelope.sender
        match envelope.message:
            case AppendEntries() as append:
                follower.on_append(node, now, sender, append)
            case AppendAnswer() as answer:
                leader.on_append_answer(node, now, sender, answer)
            case PreVote() as asked:
                election.on_prevote(node, now, sender, asked)
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
        """Do what is due by now; before `deadline` that is nothing."""
        node = self._at(now)
        if node.role == "Leader":
            leader.on_tick(node, now)
        elif node.may_campaign and node.election_due <= now:
            election.start_prevote(node, now)
        return node.take_output()

    def persisted(self, now: int, number: int) -> Ready:
        """The writes up to `number` are durable: what waited for that may leave, and counts."""
        node = self._at(now)
        node.settle(number)
        election.own_vote_durable(node, now)
        if node.role == "Leader":
            leader.advance_commit(node, now)
        return node.take_output()

    # What it is asked for

    def propose(self, now: int, commands: Sequence[bytes]) -> Ready:
        """Append commands to the log, at `last_index + 1` on. Raises `Refused`; then nothing was appended."""
        node = self._leading(now)
        if commands:
            leader.append_own(node, now, "command", commands)
        return node.take_output()

    def propose_membership(self, now: int, voters: Mapping[str, str]) -> Ready:
        """Append a membership that differs from the one in force by one member (thesis 4.1). Raises `Refused`."""
        node = self._leading(now)
        membership.check_change(node, voters)
        leader.change_membership(node, now, dict(voters))
        return node.take_output()

    def transfer(self, now: int, target: str) -> Ready:
        """Hand leadership to `target` ("": the most advanced other member); no proposals meanwhile.

        It is given up after an election timeout. Raises `Refused`.
        """
        node = self._leading(now)
        if not target:
            target = max(node.progress, key=lambda member: node.progress[member].match, default="")
        if target not in node.progress:
            raise ChangeRefused("unknown_member")
        node.transfer_target = target
        node.transfer_due = now + node.timing.election
        leader.hand_over(node)
        return node.take_output()

    def compact(self, now: int, data: bytes) -> tuple[Snapshot, Ready]:
        """Put a snapshot in the place of all committed entries; `data` is the state machine with them applied."""
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

    # What can be seen of it

    @property
    def deadline(self) -> int | None:
        """The next tick at which `tick` has something to do, unless a message changes that."""
        node = self._node
        if node.role != "Leader":
            return node.election_due if node.may_campaign else None
        due = node.heartbeat_due
        if node.transfer_target:
            due = min(due, node.transfer_due)
        contact = leader.contact_due(node)
        return due if contact is None else min(due, contact)

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
    def leader(self) -> str:
        return self._node.leader

    @property
    def commit(self) -> int:
        """All up to here is committed, and was handed out to be applied."""
        return self._node.commit

    @property
    def transfer_target(self) -> str:
        """To whom leadership is being handed; "" = to nobody."""
        return self._node.transfer_target

    @property
    def log(self) -> RaftLog:
        """To be read only."""
        return self._node.log

    @property
    def progress(self) -> Mapping[str, Progress]:
        """Of each other member, while this one leads. To be read only."""
        return self._node.progress
