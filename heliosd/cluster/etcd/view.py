"""An etcd cluster as one heliosd sees it, from what its members answer.

Pure: the poller passes in each answer, calls `look` after it and several times in between, and handles the
changes that `look` returns.
"""

from __future__ import annotations

from collections.abc import Sequence

from heliosd.clock import Instant
from heliosd.cluster.etcd.client.responses import EtcdMember, MemberStatus
from heliosd.cluster.latency import HealthChanged, LatencyTracker
from heliosd.raft.roles import Role

from .election import FRESH_SECONDS, Election, LeaderElected, LeaderLost, MemberAnswer
from .member_health import MemberHealth
from .member_traces import MemberTraces
from .members import KnownMember, bearing, known
from .pace import ACCEPTED_SECONDS, REMEMBERED_ANSWERS, Pace
from .view_changes import MemberRestarted, OtherCluster, OwnStateChanged, ViewChange


class ClusterView:
    """The cluster of etcd as the heliosd `node_id` sees it.

    `latency` gets every peer, and every poll of a peer as kind "probe". Times are of `now.mono`.
    """

    def __init__(self, node_id: str, latency: LatencyTracker) -> None:
        self.node_id = node_id
        self.cluster_id = ""
        """Hex; "" until the first answer."""
        self.members: tuple[EtcdMember, ...] = ()
        """In the order of ids. While `members_as_of` is 0, only the list of members to poll."""
        self.known_members: tuple[KnownMember, ...] = ()
        """The same as they are shown."""
        self.voters: tuple[str, ...] = ()
        self.own: EtcdMember | None = None
        """The member whose id or name is this node's id; None also if several members have that name."""
        self.members_as_of = 0
        """A store revision of the leader from before it listed `members`; 0: no leader has listed them."""
        self.latency = latency
        self.health = MemberHealth(latency)
        self._election = Election()
        self._answers: dict[str, MemberAnswer] = {}
        self._statuses: dict[str, MemberStatus] = {}
        self._revisions: dict[str, tuple[tuple[float, int], ...]] = {}
        """Time and store revision of each member's last answers."""
        self._reasons: dict[str, str] = {}
        self.traces = MemberTraces()
        self.pace = Pace()
        self._contacts: dict[str, EtcdMember] = {}
        """The newest list from any member, by id, while no leader has listed the members: only for polls."""
        self._changes: list[ViewChange] = []
        self._term_seen = 0
        self._elected = float("-inf")
        self._shown: tuple[Role, int, str] = ("Unknown", 0, "")

    # Input

    def listed(self, by: str, members: Sequence[EtcdMember], asked: float, now: Instant) -> None:
        """The member `by` listed these members; it was asked at `asked`.

        etcd 3.4 lists what the asked member has applied. So only a leader's list is accepted, and none older than
        the last one. Without a leader, any list shows whom to poll: a new member's client URL may be in no older
        list. The list of a member that names itself as leader then decides whose answers confirm it.
        """
        listed = tuple(sorted(members, key=lambda each: each.id))
        self.health.listed((each.id for each in listed), asked)
        if not self.leader:
            self._contacts = {each.id: each for each in listed if each.client_urls}
            claimant = self.lister()
            if claimant is not None and by == claimant.id:
                self.members_as_of = 0
        if not self.members or not (self.members_as_of or self.leader):
            self._take(listed, now)
        if by and by == self.leader and self._elected <= asked:
            self._contacts.clear()
            # A status that came after the list was asked for does not show how old the list is.
            heard = reversed(self._revisions.get(by, ()))
            as_of = next((revision for at, revision in heard if at <= asked), -1)
            if as_of >= self.members_as_of:
                self.members_as_of, self.health.leader_listed_at = as_of, asked
                self._take(listed, now)

    def answered(self, asked_member: str, status: MemberStatus, seconds: float, now: Instant) -> None:
        """A status came after `seconds`; it counts for the member that answered. `asked_member` is the one whose
        URL was asked, "" if the URL belongs to no known member."""
        member = status.header.member_id
        if not self.cluster_id:
            self.cluster_id = status.header.cluster_id
        if status.header.cluster_id != self.cluster_id:
            self.failed(asked_member, f"belongs to another cluster ({status.header.cluster_id})", now)
            return
        if asked_member not in ("", member):
            self.failed(asked_member, f"another member answers at its address ({member})", now)
        if self.members_as_of and all(
            each.id != member for each in (*self.members, *self._contacts.values())
        ):
            return  # it was removed, and answers for a second more
        self._statuses[member] = status
        latest = self._revisions.get(member, ())[1 - REMEMBERED_ANSWERS :]
        self._revisions[member] = (*latest, (now.mono, status.header.revision))
        before = self._answers.get(member)
        silent = now.mono - before.at if before is not None and before.unanswered is not None else 0.0
        leads = status.leader == member == self.leader and status.raft_term == self.term
        if leads and self.traces.of(member).in_doubt:
            self.pace.decided(now.mono)
        self.traces.of(member).answered(seconds, silent, now.mono, leads=leads)
        self._answers[member] = MemberAnswer(status.leader, status.raft_term, now.mono - seconds, now.mono)
        changed_its_mind = before is not None and before.leader == self.leader != status.leader
        if changed_its_mind or (status.leader and status.raft_term > self.term):
            self.pace.in_doubt(now.mono)
        self._reasons.pop(member, None)
        self._note(self.health.answered(member, seconds, now))

    def replaced_by(self, cluster_id: str, now: Instant) -> None:
        """Another cluster has taken the place of ours: forget everything about the one before."""
        if self.leader:
            self._changes.append(LeaderLost(self.leader, self.term))
        self._take((), now)
        self._election = Election()
        self._answers, self._statuses, self._revisions, self._reasons, self._contacts = {}, {}, {}, {}, {}
        self.members_as_of = self._term_seen = 0
        self.cluster_id = cluster_id
        self._changes.append(OtherCluster(cluster_id))

    def failed(self, member: str, reason: str, now: Instant) -> None:
        """A member did not answer with a status. Without effect for one that is none any more."""
        if all(each.id != member for each in self.to_poll()):
            return
        answer = self._answers.get(member)
        if answer is None:
            self.traces.of(member).never_answered(now.mono)
        elif answer.unanswered is None:
            self._answers[member] = answer.unanswered_from(now.mono)
            self._doubt_if_leader(member, now)
        self._reasons[member] = reason
        if not self.traces.is_starting(member, now.mono):
            self._note(self.health.failed(member, now))

    def overdue(self, member: str, since: float, now: Instant) -> None:
        """It was asked at `since` and should have answered by now."""
        trace = self.traces.of(member)
        if trace.overdue is None:
            trace.overdue = since
            self._doubt_if_leader(member, now)

    def process_ended(self, member: str, now: Instant) -> None:
        """The process of this member has ended."""
        self.traces.of(member).process_ended(now.mono)
        self._doubt_if_leader(member, now)

    def restarted(self, member: str, now: Instant) -> None:
        """Its process is another one than before. Only a change if it was not seen to be unhealthy meanwhile."""
        elected = self._elected if member == self.leader else float("-inf")
        if not self.traces.of(member).another_process(now.mono, elected):
            self._changes.append(MemberRestarted(member))

    def term_seen(self, term: int, now: Instant) -> bool:
        """An answer of any kind has shown this term; returns whether it is news."""
        if term <= max(self.term, self._term_seen) or not self.term:
            return False
        self._term_seen = term
        self.pace.in_doubt(now.mono)
        return True

    def skip(self, seconds: float) -> None:
        """This process did not run for so long: no answer, and no silence, gets older by it."""
        self._answers = {member: each.later(seconds) for member, each in self._answers.items()}
        self._revisions = {
            member: tuple((at + seconds, revision) for at, revision in heard)
            for member, heard in self._revisions.items()
        }
        self.traces.skip(seconds)
        self.pace.skip(seconds)
        self._elected += seconds
        self._election.skip(seconds)
        self.health.skip(seconds)

    def look(self, now: Instant) -> tuple[ViewChange, ...]:
        """The changes since the last call, in order."""
        heard = self.traces.heard_voters(self.voters, self._answers, now.mono)
        change = self._election.decide(self._answers, heard, now.mono)
        if change is not None:
            self._changes.append(change)
            self._elected = now.mono
            if isinstance(change, LeaderElected):
                self.pace.decided(now.mono)
                self.traces.elected(change.leader)
                if change.restored:
                    self.members_as_of = self._term_seen = 0
            else:
                self.pace.in_doubt(now.mono)
        self._changes += self.health.check(now)
        shown = (self.own_role(now), self.own_term, self.leader)
        if shown != self._shown:
            self._changes.append(OwnStateChanged(self._shown[0], *shown))
            self._shown = shown
        changes, self._changes = tuple(self._changes), []
        return changes

    # State

    @property
    def leader(self) -> str:
        """The leader's id, "" if none is known."""
        return self._election.leader

    @property
    def term(self) -> int:
        """The highest confirmed term, also while there is no leader; 0 before the first."""
        return self._election.term

    @property
    def suspect(self) -> bool:
        """The leader does not answer this node, though a quorum names it."""
        return self._election.suspect

    @property
    def doubted(self) -> bool:
        """Another leader or term is being confirmed (see `Election.doubted`): do not write `term` anywhere."""
        return self._election.doubted

    @property
    def namesakes(self) -> tuple[str, ...]:
        """Ids of the members that are called as this node, if they are several."""
        found = bearing(self.members, self.node_id)
        return tuple(each.id for each in found) if len(found) > 1 else ()

    @property
    def own_term(self) -> int:
        own = self.own
        return self._answers[own.id].term if own and own.id in self._answers else self.term

    def own_role(self, now: Instant) -> Role:
        """This node's state: `Observer` where no member bears its id, `Unknown` before the members are known."""
        if not self.members:
            return "Unknown"
        own = self.own
        return "Observer" if own is None else self.role(own.id, now)

    def role(self, member_id: str, now: Instant) -> Role:
        """The state in which a member is shown: `Candidate` if it answers and knows no leader, `Unknown` if it has
        not answered lately, or names itself as leader and is not confirmed."""
        answer, status = self._answers.get(member_id), self._statuses.get(member_id)
        if member_id == self.leader:
            return "Leader"
        if answer is None or status is None or now.mono - answer.at > FRESH_SECONDS:
            return "Unknown"
        if status.is_learner:
            return "Learner"
        if not answer.leader:
            return "Candidate"
        return "Unknown" if answer.leader == member_id else "Follower"

    def last_status(self, member_id: str) -> MemberStatus | None:
        """This member's last status, however old."""
        return self._statuses.get(member_id)

    def last_answer(self, member_id: str) -> MemberAnswer | None:
        """This member's last answer, however old; None also for one that is no member any more."""
        return self._answers.get(member_id)

    def failures(self) -> dict[str, str]:
        """The members whose last poll failed, each with the reason."""
        return dict(self._reasons)

    def judged(self, now: Instant) -> dict[str, bool]:
        """The health (True: healthy) of the members that this node can judge: those that answered their last poll,
        and those that have failed for long enough to be unhealthy (see `MemberHealth`)."""
        return self.health.judged(self._answers, self.leader, now)

    def removed(self, member: str) -> bool | None:
        """Whether it is no member any more, by a list from after its last answer; None: there is no such list."""
        if self.members_as_of and all(each.id != member for each in self.members):
            return True
        return self.health.removed(member, self._answers.get(member))

    def quorum_answers(self, now: Instant) -> bool:
        """Whether a quorum of the voters has answered lately, with whatever leader."""
        voters = self.traces.heard_voters(self.voters, self._answers, now.mono)
        times = (self._answers[each].at for each in voters if each in self._answers)
        fresh = sum(now.mono - at <= FRESH_SECONDS for at in times)
        return fresh > len(voters) // 2

    def to_poll(self) -> tuple[EtcdMember, ...]:
        """The members to poll: those with a client URL."""
        by_id = {each.id: each for each in self.members if each.client_urls} | self._contacts
        return tuple(by_id.values())

    def lister(self) -> EtcdMember | None:
        """The member whose list counts: the leader, or without one the member that names itself as leader."""
        claims = {
            member: answer.term
            for member, answer in self._answers.items()
            if answer.leader == member and answer.unanswered is None
        }
        wanted = self.leader or max(claims, key=claims.__getitem__, default="")
        return next((each for each in (*self._contacts.values(), *self.members) if each.id == wanted), None)

    def settled(self, now: Instant) -> bool:
        """Whether polls may be rarer: no change lately, all members answer and agree."""
        return (
            bool(self.leader)
            and not self.suspect
            and self.pace.is_quiet(now.mono)
            and all(self._agrees(each.id, now.mono) for each in self.to_poll())
        )

    def poll_after(self, poll_interval: float, now: Instant, member: str = "") -> float:
        """Seconds from one poll of this member to the next."""
        answer = self._answers.get(member)
        answers = answer is not None and answer.unanswered is None
        return self.pace.poll_after(poll_interval, now.mono, answers=answers, settled=self.settled(now))

    def _take(self, members: tuple[EtcdMember, ...], now: Instant) -> None:
        """Replace the members."""
        if members == self.members:
            return
        before = {each.id for each in self.members}
        self.traces.listed(self.members, members, now.mono, led=bool(self.leader))
        self.members, self.known_members = members, known(members)
        self.voters = tuple(each.id for each in members if not each.is_learner)
        found = bearing(members, self.node_id)
        self.own = found[0] if len(found) == 1 else None
        self.pace.changed(now.mono)
        self.health.track(self.known_members, "" if self.own is None else self.own.id, now)
        for gone in before - {each.id for each in members}:
            self.health.forget(gone)
            self.traces.forget(gone)
            for kept in (self._answers, self._statuses, self._revisions, self._reasons):
                kept.pop(gone, None)

    def _doubt_if_leader(self, member: str, now: Instant) -> None:
        (self.pace.in_doubt if member == self.leader else self.pace.changed)(now.mono)

    def _note(self, change: HealthChanged | None) -> None:
        if change is not None:
            self._changes.append(change)
            self.traces.of(change.peer_id).health(healthy=change.healthy)

    def _agrees(self, member: str, now: float) -> bool:
        answer = self._answers.get(member)
        if answer is not None and answer.unanswered is None:
            return answer.leader == self.leader
        failing = self.traces.of(member).failed_first if answer is None else answer.unanswered
        return failing is not None and now - failing >= ACCEPTED_SECONDS
