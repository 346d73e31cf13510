"""Round-trip times of one member's calls: a request and its answer carry the same tick."""

from __future__ import annotations

from collections import deque

from heliosd.raft.messages import (
    AppendAnswer,
    AppendEntries,
    InstallAnswer,
    InstallSnapshot,
    PreVote,
    PreVoteAnswer,
    Probe,
    ProbeAnswer,
    RequestVote,
    VoteAnswer,
)

from .observations import CallKind, RoundTrip, Unanswered

REQUESTS: dict[type, CallKind] = {
    AppendEntries: "append_entries",
    PreVote: "request_vote",
    RequestVote: "request_vote",
    InstallSnapshot: "install_snapshot",
    Probe: "probe",
}
ANSWERS: dict[type, CallKind] = {
    AppendAnswer: "append_entries",
    PreVoteAnswer: "request_vote",
    VoteAnswer: "request_vote",
    InstallAnswer: "install_snapshot",
    ProbeAnswer: "probe",
}

Call = tuple[str, CallKind, int]


class RpcTimer:
    """The open calls of one member."""

    def __init__(self, timeout: int) -> None:
        self._timeout = timeout
        self._open: set[Call] = set()
        self._in_order: deque[Call] = deque()
        self._answered: dict[str, int] = {}
        """For each peer the tick at which the last call that it answered was sent."""

    def sent(self, recipient: str, message: object) -> None:
        """Record a message, if it is a request."""
        kind = REQUESTS.get(type(message))
        if kind is not None:
            assert isinstance(message, AppendEntries | PreVote | RequestVote | InstallSnapshot | Probe)
            call = (recipient, kind, message.sent)
            if call not in self._open:
                self._open.add(call)
                self._in_order.append(call)

    def arrived(self, now: int, sender: str, message: object) -> list[RoundTrip | Unanswered]:
        """The calls that have timed out by now, and after them the round trip that this message ends."""
        late, trip = self.expired(now), self.received(now, sender, message)
        return [*late, trip] if trip is not None else [*late]

    def received(self, now: int, sender: str, message: object) -> RoundTrip | None:
        """The round trip that this message ends, if any. An answer counts once, and not after the timeout."""
        kind = ANSWERS.get(type(message))
        if kind is None:
            return None
        assert isinstance(message, AppendAnswer | PreVoteAnswer | VoteAnswer | InstallAnswer | ProbeAnswer)
        call = (sender, kind, message.sent)
        if call not in self._open:
            return None
        self._open.remove(call)
        self._answered[sender] = max(message.sent, self._answered.get(sender, message.sent))
        return RoundTrip(sender, kind, now - message.sent)

    def expired(self, now: int) -> list[Unanswered]:
        """The calls that have timed out by now, each reported once."""
        late: list[Unanswered] = []
        while self._in_order and self._in_order[0][2] + self._timeout <= now:
            call = self._in_order.popleft()
            if call in self._open:
                self._open.remove(call)
                peer, kind, sent = call
                late.append(Unanswered(peer, kind, overtaken=sent < self._answered.get(peer, sent)))
        return late

    def forget(self, peer: str | None = None) -> None:
        """Close the calls to one peer, or all of them."""
        self._open = {call for call in self._open if peer is not None and call[0] != peer}
        self._answered = {each: sent for each, sent in self._answered.items() if peer not in {None, each}}
