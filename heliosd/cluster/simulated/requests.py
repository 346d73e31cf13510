"""The requests of this node's clients on their way through the replicated log.

A request waits until a leader is known, is proposed to the leader over the simulated network, is accepted at an
index, and is answered when this node applies that index. If the entry applied there is of the term that accepted
it, it is the request's (paper 5.3, log matching); otherwise the request's entry was truncated, and nothing was
written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from msgspec import Struct

from heliosd.errors import Conflict, NoLeader, NotFound, OutcomeUnknown, RequestRefused, StoreFull
from heliosd.raft.membership import Reason
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.observations import (
    Answered,
    EntryApplied,
    Installed,
    Observation,
    SoftStateChanged,
    Unwritten,
)
from heliosd.raft.simulation.proposals import (
    Accepted,
    AddMember,
    Declined,
    ForwardedProposal,
    Proposal,
    ProposalResult,
    TransferLeadership,
    WriteCommands,
)

MAX_COMMANDS = 1024
"""Proposed at once."""


class RequestDone(Struct, frozen=True):
    """It is committed at `index`, of `term`, and applied here; or leadership is `leader`'s."""

    index: int
    term: int
    leader: str = ""


@dataclass(slots=True, eq=False)
class ClientRequest:
    """One client's request. `on_done` is called once, when `outcome` is set."""

    proposal: Proposal
    on_done: Callable[[], None]
    outcome: RequestDone | Exception | None = None
    place: Accepted | None = None


@dataclass(slots=True, eq=False)
class _SentProposal:
    """Requests proposed under one serial, without a reply yet."""

    proposal: ForwardedProposal
    leader: str
    requests: list[ClientRequest]
    sent_at: int
    commit: int
    """This node's commit index at first. The leader of this term has these entries, so it accepts beyond them."""
    times: int = 1


@dataclass(slots=True)
class Requests:
    """The requests of one node. Times are ticks."""

    cluster: SimulatedCluster
    node: str
    patience: int
    """Without a reply for so long, a proposal is sent again."""
    pause: int
    """Before a request that was declined for now is proposed again."""
    _waiting: dict[ClientRequest, None] = field(default_factory=dict)
    _sent: dict[int, _SentProposal] = field(default_factory=dict)
    _placed: dict[int, list[ClientRequest]] = field(default_factory=dict)
    _transfers: list[ClientRequest] = field(default_factory=list)
    _recent: dict[int, EntryApplied] = field(default_factory=dict)
    """What was applied while replies were due, and may be what they accept: a reply may come later than its
    entry."""
    _serial: int = 0
    _resume_at: int = 0

    def add(self, request: ClientRequest) -> None:
        self._waiting[request] = None

    def is_waiting(self, request: ClientRequest) -> bool:
        """Whether a request was never proposed, or was declined, so that it has changed nothing."""
        return request in self._waiting

    def unanswered(self, request: ClientRequest) -> Exception:
        """The error of a request that has waited too long."""
        if not self.is_waiting(request):
            return OutcomeUnknown()
        proposal = request.proposal
        learners = self.cluster.members[self.node].raft.log.members.learners
        if isinstance(proposal, TransferLeadership) and proposal.target in learners:
            return Conflict("A learner cannot lead", field="target")
        return NoLeader()

    def withdraw(self, request: ClientRequest) -> None:
        """The client has gone: the request is not proposed any more."""
        request.outcome = request.outcome or OutcomeUnknown()
        self._waiting.pop(request, None)
        if request.place is not None and request in (placed := self._placed.get(request.place.index, [])):
            self._take_out(request.place.index, [request], placed)
        if request in self._transfers:
            self._transfers.remove(request)

    def _take_out(self, index: int, gone: Iterable[ClientRequest], placed: list[ClientRequest]) -> None:
        self._placed[index] = [request for request in placed if request not in gone]
        if not self._placed[index]:
            del self._placed[index]

    @property
    def busy(self) -> bool:
        """Whether any request is open."""
        return bool(self._waiting or self._sent or self._placed)

    def next_due(self) -> int | None:
        """The tick at which `submit` has something to do; None without requests."""
        dues = [sent.sent_at + self.patience for sent in self._sent.values()]
        if self._waiting and self._leader:
            dues.append(self._resume_at)
        return min(dues, default=None)

    @property
    def _leader(self) -> str:
        member = self.cluster.members[self.node]
        return member.raft.leader if member.running else ""

    # Proposing

    def submit(self) -> None:
        """Propose what waits, in as few messages as possible, and repeat proposals whose replies are overdue."""
        now = self.cluster.now
        for serial, sent in list(self._sent.items()):
            if sent.sent_at + self.patience <= now:
                self._send_again(serial, sent)
        while self._waiting and self._leader and self._resume_at <= now:
            writes = [request for request in self._waiting if isinstance(request.proposal, WriteCommands)]
            if writes:
                some = list(islice(writes, MAX_COMMANDS))
                proposal: Proposal = WriteCommands(tuple(_command(request) for request in some))
            else:
                some = [next(iter(self._waiting))]
                proposal = some[0].proposal
            for request in some:
                del self._waiting[request]
            self._serial += 1
            result = self.cluster.propose(self.node, self._serial, proposal)
            if isinstance(result, ForwardedProposal):
                commit = self.cluster.members[self.node].raft.commit
                self._sent[self._serial] = _SentProposal(result, self._leader, some, now, commit)
            else:
                self._judge(some, result)

    def _send_again(self, serial: int, sent: _SentProposal) -> None:
        member = self.cluster.members[self.node]
        if all(request.outcome is not None for request in sent.requests):  # the clients have gone
            del self._sent[serial]
        elif self._leader == sent.leader and member.raft.term == sent.proposal.term:
            self.cluster.forward(self.node, sent.leader, sent.proposal)
            sent.sent_at = self.cluster.now
            sent.times += 1
        else:  # another leader does not know what this one did
            del self._sent[serial]
            for request in sent.requests:
                self._settle(request, OutcomeUnknown())
        self._forget_applied()

    # Outcomes

    def observe(self, observation: Observation) -> None:
        """Settle the requests that an observation decides."""
        match observation:
            case EntryApplied(member=self.node):
                self._applied(observation)
            case Answered(member=self.node, serial=serial, result=result):
                self._answered(serial, result)
            case SoftStateChanged(member=self.node):
                self._leader_changed()
            case Installed(member=self.node, snapshot=snapshot):
                self._recent.clear()
                for index in [index for index in self._placed if index <= snapshot.index]:
                    for request in self._placed.pop(index):
                        self._settle(request, OutcomeUnknown())
            case Unwritten(was=was, last_index=last_index, sent=sent) if was.role == "Leader":
                self._truncated(was.term, last_index, OutcomeUnknown() if sent else _not_stored())
            case _:
                pass

    def _truncated(self, term: int, last_index: int, outcome: Exception) -> None:
        for index, placed in [place for place in self._placed.items() if place[0] > last_index]:
            lost = [request for request in placed if _term(request) == term]
            self._take_out(index, lost, placed)
            for request in lost:
                self._settle(request, outcome)

    def _applied(self, applied: EntryApplied) -> None:
        if self._sent:
            self._recent[applied.entry.index] = applied
        for request in self._placed.pop(applied.entry.index, ()):
            self._conclude(request, applied)

    def _conclude(self, request: ClientRequest, applied: EntryApplied) -> None:
        entry = applied.entry
        if entry.term != _term(request):
            self._settle(request, NoLeader())
        elif isinstance(applied.result, RequestRefused):
            self._settle(request, applied.result)
        else:
            self._settle(request, RequestDone(entry.index, entry.term))

    def _answered(self, serial: int, result: ProposalResult) -> None:
        sent = self._sent.pop(serial, None)
        if sent is not None:
            only_copy = sent.times == 1 and not self.cluster.net.conditions.repeats
            if result == Declined("not_leader") and not only_copy:
                # It may have led, and done it, when another copy came.
                for request in sent.requests:
                    self._settle(request, OutcomeUnknown())
            else:
                self._judge(sent.requests, result)
        self._forget_applied()

    def _forget_applied(self) -> None:
        """Forget the entries that no reply that is still due can have accepted."""
        oldest = min((sent.commit for sent in self._sent.values()), default=None)
        if oldest is None:
            self._recent.clear()
        else:
            self._recent = {index: applied for index, applied in self._recent.items() if index > oldest}

    def _judge(self, requests: list[ClientRequest], result: ProposalResult) -> None:
        if isinstance(result, Accepted):
            for place, request in enumerate(requests):
                self._accepted(request, Accepted(result.index + place, result.term, result.target))
        elif result.reason in {"not_leader", "transferring", "busy"}:
            still_wanted = {request: None for request in requests if request.outcome is None}
            self._waiting = still_wanted | self._waiting
            self._resume_at = self.cluster.now + self.pause
        else:
            for request in requests:
                self._settle(request, self._declined_error(request.proposal, result.reason))

    def _accepted(self, request: ClientRequest, place: Accepted) -> None:
        request.place = place
        if place.target:
            self._transfers.append(request)
            self._leader_changed()
        elif (applied := self._recent.get(place.index)) is not None:
            self._conclude(request, applied)
        else:
            self._placed.setdefault(place.index, []).append(request)

    def _leader_changed(self) -> None:
        """A transfer is done once a leader of a later term is known here, or the target leads."""
        raft = self.cluster.members[self.node].raft
        for request in list(self._transfers):
            assert request.place is not None
            if self._leader and (raft.term > request.place.term or self._leader == request.place.target):
                self._transfers.remove(request)
                self._settle(request, RequestDone(0, raft.term, self._leader))

    def _declined_error(self, proposal: Proposal, reason: Reason) -> Exception:
        match reason:
            case "taken":
                if isinstance(proposal, AddMember) and proposal.member in self.cluster.members:
                    return Conflict(f"Peer already exists: {proposal.member}", field="id")
                return Conflict("A member with this address exists", field="address")
            case "unknown_member":
                field = "target" if isinstance(proposal, TransferLeadership) else "id"
                return NotFound("Unknown peer", field=field)
            case "last_member":
                return Conflict("The only member cannot be removed", field="id")
            case "storage":
                return _not_stored()
            case _:
                return NoLeader()

    def _settle(self, request: ClientRequest, outcome: RequestDone | Exception) -> None:
        if request.outcome is None:
            request.outcome = outcome
            request.on_done()


def _term(request: ClientRequest) -> int:
    return request.place.term if request.place is not None else 0


def _command(request: ClientRequest) -> bytes:
    assert isinstance(request.proposal, WriteCommands)
    return request.proposal.commands[0]


def _not_stored() -> StoreFull:
    return StoreFull("the cluster's log could not be written to disk")
