"""Who leads an etcd cluster, decided from what its members say.

1. The leader is a member that names itself, in the highest term, and that a quorum of voters names.
2. A leader that stops answering is suspect. It stays the leader while a quorum of the others names it: a follower
   forgets its leader after an election timeout without a heartbeat. So a heliosd that alone is cut off from the
   leader reports no loss.
3. A status shows the present leader beside the term of the last *applied* entry (etcd 3.4, `EtcdServer.setTerm` in
   `apply`), so just after an election a new leader may show the old term. A term has one leader: such a claim waits
   until it shows a new term.
4. A new leader that is slow to apply shows the new term later than its followers do. A term that only they show may
   be that of another leader in between, whose entries they are applying: it has to hold for a while.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

from heliosd.raft.quorum import majority

FRESH_SECONDS = 2.5
"""An answer counts for so long: above a settled poll and its deadline, below the 3 s in which a lost quorum is
reported."""
SUSPECT_SECONDS = 1.5
"""A leader's own answer counts for so long after its first failed poll."""
HELD_SECONDS = 1.0
"""A lost leader that is seen again in the same term, and one in a term that only its followers show, has to be
confirmed for so long: it may be a new term that is not applied yet (rules 3 and 4)."""
RESTORED_SECONDS = 5.0
"""A leader in a lower term, or a second one in the same term, has to be confirmed for so long. A term never goes
back, so it shows a cluster that was restored from a backup."""


class MemberAnswer(Struct, frozen=True):
    """A member's last answer: its leader ("": it knows none), its term, when it was asked and answered (`mono`)."""

    leader: str
    term: int
    asked: float
    at: float
    unanswered: float | None = None
    """When the first poll after it failed; None: none has."""

    def unanswered_from(self, mono: float) -> MemberAnswer:
        """The same answer, after which the first poll fails."""
        return replace(self, unanswered=mono)

    def later(self, seconds: float) -> MemberAnswer:
        """The same answer at later times."""
        unanswered = None if self.unanswered is None else self.unanswered + seconds
        return replace(self, asked=self.asked + seconds, at=self.at + seconds, unanswered=unanswered)


class _Claim(Struct, frozen=True):
    """A member names itself as leader, and a quorum names it."""

    leader: str
    term: int
    shown: bool
    """It shows this term itself."""
    held: float
    """Until when it is known to have held."""


class LeaderElected(Struct, frozen=True):
    """`leader` leads in `term`. `before` is the leader until now, "" if none was known."""

    leader: str
    term: int
    before: str
    restored: bool = False
    """The terms went back: the cluster was restored from a backup."""


class LeaderLost(Struct, frozen=True):
    """No leader is known any more. `leader` was the leader in `term`."""

    leader: str
    term: int


class Election:
    """The leader as confirmed last. `term` is the highest confirmed one, also while there is no leader."""

    def __init__(self) -> None:
        self.leader = ""
        self.term = 0
        self.suspect = False
        """The leader does not answer, but a quorum names it."""
        self._last = ""
        self._waiting: tuple[str, int, float] | None = None
        """A claim that has to hold for a while: leader, term, since when."""

    @property
    def doubted(self) -> bool:
        """A claim that contradicts the confirmed leader or term is being observed: perhaps `term` belongs to a
        cluster that was set back."""
        return self._waiting is not None

    def skip(self, seconds: float) -> None:
        """Nothing was observed for so long: a claim is not confirmed by it."""
        if self._waiting is not None:
            leader, term, since = self._waiting
            self._waiting = (leader, term, since + seconds)

    def decide(
        self, answers: Mapping[str, MemberAnswer], voters: Collection[str], now: float
    ) -> LeaderElected | LeaderLost | None:
        """Decide from the answers (by member) as of `now`; returns what changed."""
        fresh = {
            member: answer
            for member, answer in answers.items()
            if member in voters and now - answer.at <= FRESH_SECONDS
        }
        quorum = majority(len(voters))
        claim = self._best_claim(fresh, quorum, now)
        if claim is None:
            self._waiting = None
        elif self._holds(claim, now):
            return self._elect(claim.leader, claim.term)
        if not self.leader:
            return None
        own = fresh.get(self.leader)
        stepped_down = own is not None and own.unanswered is None and own.leader != self.leader
        if stepped_down or named_by(self.leader, fresh, now) < quorum:
            lost = LeaderLost(self.leader, self.term)
            self.leader, self.suspect = "", False
            return lost
        self.suspect = own is None or own.unanswered is not None
        return None

    def _best_claim(self, fresh: Mapping[str, MemberAnswer], quorum: int, now: float) -> _Claim | None:
        """The member that names itself and that a quorum names, with its term."""
        for member, answer in fresh.items():
            if answer.leader != member or answer.unanswered is not None:
                continue
            naming = [each for each in fresh.values() if each.leader == member]
            # A follower shows a new term only once it has applied that term's first entry.
            if sum(each.term <= answer.term for each in naming) >= quorum:
                return _Claim(member, answer.term, shown=True, held=now)
            term = max(each.term for each in naming)
            # Only a member's own word shows that terms have gone back.
            if len(naming) >= quorum and (term > self.term or (member, term) == (self._last, self.term)):
                held = max(each.asked for each in naming if each.term == term)
                return _Claim(member, term, shown=False, held=held)
        return None

    def _holds(self, claim: _Claim, now: float) -> bool:
        """Whether the claim is new and has been confirmed for long enough."""
        leader, term = claim.leader, claim.term
        if (leader, term) == (self.leader, self.term):
            self._waiting = None
            return False
        if term > self.term:
            patience = 0.0 if claim.shown else HELD_SECONDS
        elif (leader, term) == (self._last, self.term):
            patience = HELD_SECONDS
        else:
            patience = RESTORED_SECONDS
        if self._waiting is None or self._waiting[:2] != (leader, term):
            self._waiting = (leader, term, now)
        return claim.held - self._waiting[2] >= patience

    def _elect(self, leader: str, term: int) -> LeaderElected:
        restored = term < self.term or (term == self.term and leader != self._last)
        elected = LeaderElected(leader, term, self.leader, restored)
        self.leader = self._last = leader
        self.term, self.suspect, self._waiting = term, False, None
        return elected


def named_by(leader: str, fresh: Mapping[str, MemberAnswer], now: float) -> int:
    """How many members name this leader, itself included."""
    return sum(
        answer.leader == leader
        and (member != leader or answer.unanswered is None or now - answer.unanswered < SUSPECT_SECONDS)
        for member, answer in fresh.items()
    )
