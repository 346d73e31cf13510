"""Who leads an etcd cluster, decided from what its members say.

A leader is a member that says so of itself, in the highest term, and that a quorum of voters names. One that stops
answering is suspect, and stays the leader for as long as a quorum of the others names it: a follower forgets its
leader when it hears nothing from it for an election timeout, so that is proof enough, and a heliosd that alone is
cut off from the leader cries no wolf.

etcd's status tells the term of the last *applied* entry beside the leader of this moment (etcd 3.4,
`EtcdServer.setTerm` in `apply`). So for a moment after an election a new leader shows itself with the old term. A
term has one leader: such a claim has to wait for its own term.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

FRESH_SECONDS = 2.5
"""An answer counts for so long: above a settled poll and its deadline, below the 3 s in which a lost quorum is
told."""
SUSPECT_SECONDS = 1.5
"""A leader's last word of itself counts for so long after its first unanswered poll."""
HELD_SECONDS = 1.0
"""So long the same leader has to be confirmed in the term that it was lost in, since that may be a new term's first
moment."""
RESTORED_SECONDS = 5.0
"""A leader in a lower term, or a second one in the same, has to be confirmed for so long: no running member's term
goes back, so the cluster was made anew from a backup."""


@dataclass(frozen=True, slots=True)
class MemberAnswer:
    """What a member said last: its leader ("" = it knows none), its term, and between which moments (`mono`)."""

    leader: str
    term: int
    asked: float
    at: float
    unanswered: float | None = None
    """When the first poll since then failed; None: none has."""


@dataclass(frozen=True, slots=True)
class LeaderElected:
    """`leader` leads in `term`. `before` was the leader until now, "" if none was known."""

    leader: str
    term: int
    before: str
    restored: bool = False
    """The terms began anew: the cluster was made from a backup."""


@dataclass(frozen=True, slots=True)
class LeaderLost:
    """No leader is known any more; `leader` was it in `term`."""

    leader: str
    term: int


class Election:
    """The leader as confirmed last. `term` is the highest confirmed one, also while there is no leader."""

    def __init__(self) -> None:
        self.leader = ""
        self.term = 0
        self.suspect = False
        """The leader does not answer itself, but a quorum still names it."""
        self._last = ""
        self._waiting: tuple[str, int, float] | None = None
        """A claim that has to hold for a while: who, which term, since when."""

    @property
    def doubted(self) -> bool:
        """A leader that a quorum names contradicts what was confirmed, and has not held for long enough to be
        believed: perhaps `term` is of a cluster that was set back."""
        return self._waiting is not None

    def decide(
        self, answers: Mapping[str, MemberAnswer], voters: Collection[str], now: float
    ) -> LeaderElected | LeaderLost | None:
        """Look at the answers (by member) as they stand at `now`, and tell what changed."""
        fresh = {
            member: answer
            for member, answer in answers.items()
            if member in voters and now - answer.at <= FRESH_SECONDS
        }
        quorum = len(voters) // 2 + 1
        claim = self._best_claim(fresh, quorum)
        if claim is None:
            self._waiting = None
        elif self._holds(claim, now):
            return self._elect(*claim)
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

    def _best_claim(self, fresh: Mapping[str, MemberAnswer], quorum: int) -> tuple[str, int] | None:
        """The member that says of itself that it leads, and that a quorum names, with its term."""
        for member, answer in fresh.items():
            if answer.leader != member or answer.unanswered is not None:
                continue
            # A follower shows the new term only once it has applied that term's first entry.
            named = sum(each.leader == member and each.term <= answer.term for each in fresh.values())
            if named >= quorum:
                return (member, answer.term)
        return None

    def _holds(self, claim: tuple[str, int], now: float) -> bool:
        """Whether the claim is news, and to be believed by now."""
        leader, term = claim
        if claim == (self.leader, self.term):
            self._waiting = None
            return False
        if term > self.term:
            patience = 0.0
        elif (leader, term) == (self._last, self.term):
            patience = HELD_SECONDS
        else:
            patience = RESTORED_SECONDS
        if self._waiting is None or self._waiting[:2] != claim:
            self._waiting = (leader, term, now)
        return now - self._waiting[2] >= patience

    def _elect(self, leader: str, term: int) -> LeaderElected:
        restored = term < self.term or (term == self.term and leader != self._last)
        elected = LeaderElected(leader, term, self.leader, restored)
        self.leader = self._last = leader
        self.term, self.suspect, self._waiting = term, False, None
        return elected


def named_by(leader: str, fresh: Mapping[str, MemberAnswer], now: float) -> int:
    """How many name this leader, itself included."""
    return sum(
        answer.leader == leader
        and (member != leader or answer.unanswered is None or now - answer.unanswered < SUSPECT_SECONDS)
        for member, answer in fresh.items()
    )
