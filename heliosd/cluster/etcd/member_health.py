"""The health of the members, as far as this node can judge it, and which members the lists have. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from heliosd.clock import Instant
from heliosd.cluster.latency import HealthChanged, LatencyTracker

from .election import MemberAnswer
from .members import KnownMember

NEVER = float("-inf")
LATER_SECONDS = 10.0
"""A list counts, whoever gave it, if it was asked for so long after a member's failure: by then each has applied a
removal, and a leader that has died is none any more."""


class MemberHealth:
    """Health of this node's own member and of its peers. `peers` is what the status shows.

    A member that fails because it was removed is not unhealthy, so one counts as unhealthy only if a list of
    members that was asked for after its failure has it: one of the leader, or where that is silent, one of another
    member from a good while later.
    """

    def __init__(self, peers: LatencyTracker) -> None:
        self._peers = peers
        self._own = LatencyTracker()
        """This node's own member, which is no peer; clients of other heliosd need its health."""
        self._own_id = ""
        self.leader_listed_at = NEVER
        """When the newest list of a leader was asked for."""
        self._listed_at = NEVER
        """The same of any member."""
        self._named_at: dict[str, float] = {}
        """When the newest list that has this member was asked for, by id."""

    def track(self, members: Iterable[KnownMember], own_id: str, now: Instant) -> None:
        """These are the members; `own_id` is this node's, "" if none is."""
        self._own_id = own_id
        for each in members:
            mine, others = (self._own, self._peers) if each.id == own_id else (self._peers, self._own)
            mine.add_peer(each.id, each.address, now, each.address_kind)
            others.remove_peer(each.id)

    def forget(self, member: str) -> None:
        self._peers.remove_peer(member)
        self._own.remove_peer(member)

    def listed(self, members: Iterable[str], asked: float) -> None:
        """Any member has listed these."""
        self._listed_at = max(self._listed_at, asked)
        self._named_at |= dict.fromkeys(members, asked)

    def answered(self, member: str, seconds: float, now: Instant) -> HealthChanged | None:
        return self._tracker(member).succeeded(member, "probe", seconds, now)

    def failed(self, member: str, now: Instant) -> HealthChanged | None:
        return self._tracker(member).failed(member, "probe", now)

    def check(self, now: Instant) -> list[HealthChanged]:
        """The members that have been silent for too long."""
        return [*self._peers.check(now), *self._own.check(now)]

    def skip(self, seconds: float) -> None:
        """This process did not run for so long."""
        self.leader_listed_at += seconds
        self._listed_at += seconds
        self._named_at = {member: at + seconds for member, at in self._named_at.items()}
        self._peers.skip(seconds)
        self._own.skip(seconds)

    def own_healthy(self, now: Instant) -> bool:
        """Of this node's own member; True where it has none."""
        return all(each.healthy for each in self._own.peer_health(now))

    def judged(self, answers: Mapping[str, MemberAnswer], leader: str, now: Instant) -> dict[str, bool]:
        """True (healthy): answered its last poll. False: has failed for long enough. Others are left out."""
        healths = (*self._peers.peer_health(now), *self._own.peer_health(now))
        return {
            each.peer_id: each.healthy
            for each in healths
            if (each.peer_id in answers and not each.consecutive_errors)
            or (
                not each.healthy
                and self._listed_since(answers.get(each.peer_id), each.peer_id, answers, leader)
            )
        }

    def removed(self, member: str, answer: MemberAnswer | None) -> bool | None:
        """Whether lists from after its last answer have this member no longer; None: there are none."""
        if answer is None or self._listed_at <= answer.at:
            return None
        return self._named_at.get(member, NEVER) < self._listed_at

    def _listed_since(
        self, answer: MemberAnswer | None, member: str, answers: Mapping[str, MemberAnswer], leader: str
    ) -> bool:
        if answer is None or answer.unanswered is None:
            return True
        named_at = self._named_at.get(member, NEVER)
        if leader:
            by_leader = member != leader and answer.unanswered <= self.leader_listed_at
            return by_leader or answer.unanswered + LATER_SECONDS <= named_at
        # Members that have applied a removal do not list it any more; where none answers, nobody can remove one.
        return _all_silent(answers.values()) or answer.unanswered <= named_at

    def _tracker(self, member: str) -> LatencyTracker:
        return self._own if member == self._own_id else self._peers


def _all_silent(answers: Collection[MemberAnswer]) -> bool:
    return all(each.unanswered is not None for each in answers)
