"""The leaders that this node has seen lost and elected, until the log has them; and why each was lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from heliosd.clock import Instant

from .event_log import LogHead
from .loss_cause import Loss, LossCause, loss_cause
from .pending_events import Observed
from .view import ClusterView

NOT_KNOWN = LossCause()
KEPT = 50
"""Losses, and elections. More in a row that the log does not take are left out, which `terms_unseen` then says."""


@dataclass(slots=True)
class _SeenLoss:
    at: Instant
    elected: float
    """When the lost leader was elected."""
    next_at: float | None = None
    next_leader: str = ""
    found: LossCause = NOT_KNOWN
    evaluated: bool = False
    """`found` is from after the next election."""


class LeaderHistory:
    """`observed` says of a loss and the election after it what this node has seen. `refresh` looks again for the
    cause of the last loss."""

    def __init__(self, view: ClusterView, now: Callable[[], Instant]) -> None:
        self._view = view
        self._now = now
        self._losses: dict[tuple[str, int], _SeenLoss] = {}
        self._elections: dict[int, tuple[str, float]] = {}
        """Term -> leader, Unix seconds."""
        self._term = 0
        """Of the leader that was elected last."""
        self._since = float("-inf")
        """When it was elected first in this term; monotonic."""

    def clear(self) -> None:
        """Terms begin again, or another cluster answers."""
        self._losses.clear()
        self._elections.clear()

    def lost(self, leader: str, term: int) -> None:
        """No leader is known any more."""
        self._note_loss(leader, term, self._now())
        self._trim()
        self.refresh()

    def elected(self, leader: str, term: int, before: str) -> None:
        """`before` led until now, "" if none was known."""
        now = self._now()
        if before:
            self._note_loss(before, self._term, now)
        if self._losses:
            last = next(reversed(self._losses.values()))
            if last.next_at is None:
                last.next_at, last.next_leader = now.mono, leader
        if term != self._term:  # else it leads again, and its process may have ended in between
            self._since = now.mono
        self._elections[term] = (leader, now.wall)
        self._term = term
        self._trim()
        self.refresh()

    def refresh(self) -> LossCause:
        """The cause of the last loss, as far as it can be said now."""
        if not self._losses:
            return LossCause(certain=True)
        (leader, term), seen = next(reversed(self._losses.items()))
        if not (seen.found.certain and seen.evaluated):
            loss = Loss(
                leader=leader,
                at=seen.at.mono,
                answer=self._view.last_answer(leader),
                trace=self._view.traces.of(leader),
                elected=seen.elected,
                removed=self._view.removed(leader),
                next_at=seen.next_at,
                leads_again=seen.next_leader == leader,
            )
            found = loss_cause(loss, self._now().mono)
            if found.cause != "unknown" or seen.found.cause == "unknown":
                self._losses[leader, term] = replace(seen, found=found, evaluated=seen.next_at is not None)
        return self._losses[leader, term].found

    def next_after(self, head: LogHead) -> tuple[int, str]:
        """Term and leader of the first election that the log does not have and this node has seen; the present
        leader if there is none before it."""
        later = [term for term in self._elections if head.term < term <= self._view.term]
        if later:
            return min(later), self._elections[min(later)][0]
        return self._view.term, self._view.leader

    def observed(self, lost: str, lost_term: int, elected_term: int) -> Observed:
        """What this node has seen of the loss of this leader, and of the election in that term."""
        loss = self._losses.get((lost, lost_term))
        elected = self._elections.get(elected_term)
        return Observed(
            names={each.id: each.name for each in self._view.members},
            lost_at=None if loss is None else loss.at.wall,
            elected_at=None if elected is None else elected[1],
            cause=None if loss is None else loss.found.cause,
            evidence=None if loss is None else loss.found.evidence,
        )

    def _note_loss(self, leader: str, term: int, now: Instant) -> None:
        """It is lost. It may have been lost and held again before, which was another loss."""
        self._losses.pop((leader, term), None)  # the last loss is the last entry
        self._losses[leader, term] = _SeenLoss(now, self._since)

    def _trim(self) -> None:
        while len(self._losses) > KEPT:
            del self._losses[next(iter(self._losses))]
        while len(self._elections) > KEPT:
            del self._elections[next(iter(self._elections))]
