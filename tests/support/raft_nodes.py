"""One Raft member; the test plays all others."""

from __future__ import annotations

from random import Random

from heliosd.raft.log import Members
from heliosd.raft.messages import (
    AppendAnswer,
    AppendEntries,
    Entry,
    Envelope,
    Message,
    PreVoteAnswer,
    Snapshot,
    VoteAnswer,
)
from heliosd.raft.node import RaftNode
from heliosd.raft.state import Ready, Timing
from heliosd.raft.storage import MemberState

TIMING = Timing(heartbeat=10, election=100)
ABC = {"a": "a:1", "b": "b:1", "c": "c:1"}


def command(index: int, term: int, data: bytes = b"x") -> Entry:
    return Entry(index, term, "command", data)


class Stage:
    """Member `a` of a, b and c, by default. Time passes only by `wait`; the disk writes when the test says so."""

    def __init__(
        self,
        *entries: Entry,
        term: int = 1,
        vote: str = "",
        members: dict[str, str] = ABC,
        snapshot: Snapshot | None = None,
        chunk_bytes: int = 1000,
    ) -> None:
        start = snapshot or Snapshot(1, 1, members)
        state = MemberState(term=term, vote=vote, snapshot=start, log=entries)
        self.raft = RaftNode("a", state, timing=TIMING, rng=Random(1), now=0, chunk_bytes=chunk_bytes)
        self.now = 0
        self.sent: list[Envelope] = []
        """Messages sent since the last `take`."""
        self.committed: list[Entry] = []
        self.unwritten = 0

    def _done(self, output: Ready) -> Ready:
        self.sent += output.sends
        self.committed += output.committed
        if output.write is not None:
            self.unwritten = output.write.number
        return output

    def receive(self, sender: str, message: Message) -> Ready:
        return self._done(self.raft.step(self.now, Envelope(sender, "a", message)))

    def wait(self, ticks: int) -> None:
        """Let time pass, ticking at every deadline."""
        end = self.now + ticks
        while (due := self.raft.deadline) is not None and due <= end:
            self.now = due
            self._done(self.raft.tick(due))
        self.now = end

    def write(self) -> Ready:
        """The disk has written everything so far."""
        return self._done(self.raft.persisted(self.now, self.unwritten))

    def propose(self, *commands: bytes) -> Ready:
        return self._done(self.raft.propose(self.now, commands))

    def change(self, voters: dict[str, str]) -> Ready:
        return self._done(self.raft.propose_membership(self.now, Members(voters, {})))

    def transfer(self, target: str) -> Ready:
        return self._done(self.raft.transfer(self.now, target))

    def take(self) -> list[tuple[str, Message]]:
        """Messages sent since the last time: (recipient, message)."""
        sent, self.sent = self.sent, []
        return [(envelope.recipient, envelope.message) for envelope in sent]

    def timeout(self) -> None:
        """Wait for the election timeout, and not beyond."""
        deadline = self.raft.deadline
        assert deadline is not None
        self.wait(deadline - self.now)

    def campaign(self, voter: str = "b") -> None:
        """Become a candidate, with everything on disk."""
        self.timeout()
        self.receive(voter, PreVoteAnswer(self.raft.term + 1, True, self.now))
        self.write()

    def lead(self, voter: str = "b") -> None:
        """Become leader; its first entry is on disk here only."""
        self.campaign(voter)
        self.receive(voter, VoteAnswer(self.raft.term, True, self.now))
        self.write()
        self.take()

    def accept(self, follower: str, match: int) -> Ready:
        """A follower acknowledges the log up to `match`."""
        return self.receive(follower, AppendAnswer(self.raft.term, True, match, 0, 0, 0, self.now))

    def append(
        self, prev: tuple[int, int], *entries: Entry, term: int, commit: int = 0, leader: str = "b"
    ) -> Ready:
        """A leader's AppendEntries; `prev` is (index, term)."""
        return self.receive(leader, AppendEntries(term, prev[0], prev[1], entries, commit, self.now))
