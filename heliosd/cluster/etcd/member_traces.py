"""What this node has noticed of each member besides its answers. Pure.

`loss_cause.py` concludes from it why a leader was lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Literal

from heliosd.cluster.etcd.client.responses import EtcdMember

from .election import FRESH_SECONDS, HELD_SECONDS, MemberAnswer

Reach = Literal["refused", "accepted", "silent"]
"""What a TCP connection to its client port met: nobody listens; the kernel took it; no answer, or no way there."""

LATE_SECONDS = 0.5
"""An answer that took so long is late."""
LATEST_SECONDS = 1.1
"""No answer is waited for longer than this, so what took longer was a pause of this process."""
REMEMBERED_SECONDS = 10.0
STARTING_SECONDS = 10.0
"""A new member publishes its URL before it serves, and is busy with the log of the others then."""


@dataclass(slots=True)
class MemberTrace:
    """Times are monotonic."""

    learner: bool = False
    """A list has shown it as a learner."""
    joined: float | None = None
    """When it was first listed as a voter, for one that became it while this node knew a leader."""
    starting: float | None = None
    """When its URL was first listed, for a member that came while this node looked."""
    failed_first: float | None = None
    """When the first poll of it failed, for one that has not answered since this heliosd started."""
    asked: float | None = None
    """Since when a request to it is without an answer."""
    ended: float | None = None
    """When its process was last seen to have ended."""
    last_ended: float = float("-inf")
    """The same, also if an answer has disproved it since."""
    restarted: float | None = None
    """When its process was found to be another one than when the present leader was elected."""
    overdue: float | None = None
    """Since when a request to it has been without an answer for longer than usual; None: it answers."""
    reach: Reach | None = None
    """What the last connection met, since it last answered."""
    unhealthy: bool = False
    was_unhealthy: bool = False
    """Since its process was last found to have ended, or to be another one."""
    db_quota: int = 0
    """Bytes, from its `/metrics`; 0: not known."""
    late: deque[tuple[float, float]] = field(default_factory=deque)
    """Its late answers: when, and after how many seconds."""

    @property
    def in_doubt(self) -> bool:
        """Whether it lives, and answers in time, has to be shown by its next answer."""
        return self.overdue is not None or self.ended is not None

    def is_silent(self, answer: MemberAnswer | None) -> bool:
        """Whether it is of no use to ask it now; `answer` is its last one. One that has answered since its process
        seemed to end lives."""
        ended = self.ended is not None and (answer is None or answer.at <= self.ended)
        unanswered = answer is not None and answer.unanswered is not None
        return ended or unanswered or self.overdue is not None

    def never_answered(self, now: float) -> None:
        """A poll of it has failed, and none was answered yet."""
        self.failed_first = now if self.failed_first is None else self.failed_first

    def connection_ended(self, now: float) -> None:
        """Its process may have ended: an outage that is over is none of this one."""
        self.was_unhealthy, self.last_ended = self.unhealthy, now

    def process_ended(self, now: float) -> None:
        """Its process has ended, as it seems."""
        self.ended = self.last_ended = now

    def another_process(self, now: float, elected: float) -> bool:
        """Its process is another one than before. Returns whether an outage was seen meanwhile.

        A leader that was `elected` after its process had ended is the process that is there now.
        """
        if self.last_ended >= elected:
            self.ended, self.restarted = self.ended or now, now
        seen, self.was_unhealthy = self.was_unhealthy, False
        return seen

    def same_process(self) -> None:
        """Its process is the one that was taken for ended: only the connection was."""
        self.ended, self.last_ended = None, float("-inf")

    def health(self, *, healthy: bool) -> None:
        """Its health has changed."""
        self.unhealthy = not healthy
        self.was_unhealthy |= not healthy

    def answered(self, seconds: float, silent: float, now: float, *, leads: bool) -> None:
        """It answered after `seconds`, and has not answered for `silent` seconds before. `leads`: it still does."""
        self.overdue = self.reach = None
        # Just after its restart it may lead in a term that its status does not show yet.
        if leads and (self.restarted is None or now - self.restarted >= HELD_SECONDS):
            self.ended = self.restarted = None
        took = max(silent, seconds if seconds <= LATEST_SECONDS else 0.0)
        if took >= LATE_SECONDS:
            self.late.append((now, took))

    def late_answers(self, now: float, within: float = REMEMBERED_SECONDS) -> list[float]:
        """The seconds of its late answers of so long."""
        while self.late and now - self.late[0][0] > REMEMBERED_SECONDS:
            self.late.popleft()
        return [took for at, took in self.late if now - at <= within]


class MemberTraces:
    """The traces by member id."""

    def __init__(self) -> None:
        self._traces: dict[str, MemberTrace] = {}

    def of(self, member: str) -> MemberTrace:
        """The trace of this member; an empty one if nothing was noticed yet."""
        return self._traces.setdefault(member, MemberTrace())

    def forget(self, member: str) -> None:
        self._traces.pop(member, None)

    def listed(
        self, before: Sequence[EtcdMember], members: Sequence[EtcdMember], now: float, *, led: bool
    ) -> None:
        """One list of members is replaced by the next; the first list has no new members. `led`: a leader is
        known."""
        had = {each.id for each in before if each.client_urls}
        voted = {each.id for each in before if not each.is_learner}
        for member in members:
            if before and led and member.id not in voted and not member.is_learner:
                self.of(member.id).joined = now
            self.of(member.id).learner |= member.is_learner
            if before and member.client_urls and member.id not in had:
                self.of(member.id).starting = now

    def heard_voters(self, voters: Sequence[str], answered: Container[str], now: float) -> list[str]:
        """The voters without those that joined lately and have not answered yet. etcd gives a new voter time to
        start, too: a leader without a quorum steps down after an election timeout, and then says so itself."""
        return [
            voter
            for voter in voters
            if voter in answered or (joined := self.of(voter).joined) is None or now - joined > FRESH_SECONDS
        ]

    def is_starting(self, member: str, now: float) -> bool:
        """It need not answer each request yet."""
        since = self.of(member).starting
        return since is not None and now - since < STARTING_SECONDS

    def elected(self, leader: str) -> None:
        """It leads from now on."""
        self.of(leader).late.clear()
        for trace in self._traces.values():
            trace.restarted = None

    def skip(self, seconds: float) -> None:
        """This process did not run for so long: whose answer is due cannot be said."""
        for trace in self._traces.values():
            trace.failed_first = _later(trace.failed_first, seconds)
            trace.asked = _later(trace.asked, seconds)
            trace.joined = _later(trace.joined, seconds)
            trace.starting = _later(trace.starting, seconds)
            trace.restarted = _later(trace.restarted, seconds)
            trace.overdue = None
            trace.late.clear()


def _later(at: float | None, seconds: float) -> float | None:
    return None if at is None else at + seconds
