"""Why a leader is it no longer, from what was seen of it before and after. Pure.

An answer of the leader that was asked for after its loss says most: a leader that hands over follows the next one
at once; one that is cut off from the others knows no leader, while they have elected another one. One that does
not answer is judged by its process (seen to have ended), or by what a new connection to it meets.
"""

from __future__ import annotations

from msgspec import Struct, field

from heliosd.protocol.events import Cause, Evidence

from .election import MemberAnswer
from .member_traces import MemberTrace

SILENT_SECONDS = 1.5
"""A member that is polled every second and has not answered for so long is silent."""
PROMPT_SECONDS = 0.25
"""An answer that took longer is none of a leader that hands over."""
HANDOVER_SECONDS = 0.5
"""A leader that hands over leaves no longer time without a leader."""
JUST_NOW_SECONDS = 3.0


class LossCause(Struct, frozen=True):
    """`certain`: no later observation is expected to say more."""

    cause: Cause = "unknown"
    evidence: Evidence = field(default_factory=dict)
    certain: bool = False


class Loss(Struct, frozen=True, kw_only=True):
    """A leader's loss as this node has seen it; times are monotonic."""

    leader: str
    at: float
    answer: MemberAnswer | None
    """Its last answer."""
    trace: MemberTrace
    elected: float = float("-inf")
    """When it was seen to be elected."""
    removed: bool | None = None
    """Whether a list of members from after its last answer has it no longer; None: there is no such list."""
    next_at: float | None = None
    """When the next leader was seen; None: none has been."""
    leads_again: bool = False
    """The next leader is the same one."""

    @property
    def ended(self) -> float | None:
        """When the process that led was seen to have ended. One that had ended before the election did not lead."""
        ended = self.trace.ended
        return None if ended is None or ended < self.elected else ended


def loss_cause(loss: Loss, now: float) -> LossCause:
    """The cause as far as it can be said at `now`, and the evidence from which it is concluded."""
    evidence = _evidence(loss, now)
    if loss.removed:
        return LossCause("removed", evidence, certain=True)
    answer, trace = loss.answer, loss.trace
    if loss.leads_again:
        return LossCause("stopped" if loss.ended is not None else "stepped_down", evidence, certain=True)
    listed = loss.removed is False
    if loss.ended is not None and (
        answer is None or answer.leader in ("", loss.leader) or answer.asked > loss.ended
    ):
        return LossCause("stopped", evidence, listed)
    if answer is None:
        return LossCause("unknown", evidence)
    late = trace.late_answers(now)
    if answer.unanswered is not None or trace.overdue is not None or now - answer.at > SILENT_SECONDS:
        match trace.reach:
            case "silent":
                return LossCause("unreachable", evidence, listed)
            case "accepted" if late:
                return LossCause("stepped_down", evidence, listed)
            case found:
                return LossCause("stopped", evidence, listed and found is not None)
    if answer.leader not in ("", loss.leader):
        return LossCause(_handed_over(loss, answer, now), evidence, certain=True)
    if answer.asked < loss.at:
        return LossCause("unknown", evidence)
    if loss.next_at is None:
        return LossCause("stepped_down" if not answer.leader else "unknown", evidence)
    # The others have elected another one and it does not know: they do not reach it, and this node does.
    return LossCause("stepped_down" if late else "unreachable", evidence)


def _handed_over(loss: Loss, answer: MemberAnswer, now: float) -> Cause:
    waited = 0.0 if loss.next_at is None else loss.next_at - loss.at
    slow = answer.at - answer.asked > PROMPT_SECONDS or loss.trace.late_answers(now, JUST_NOW_SECONDS)
    return "stepped_down" if slow or waited > HANDOVER_SECONDS else "transfer"


def _evidence(loss: Loss, now: float) -> Evidence:
    found: dict[str, float | str] = {}
    if loss.answer is not None:
        found["last_answer_ms"] = round((now - loss.answer.at) * 1000, 1)
        found["answer_took_ms"] = round((loss.answer.at - loss.answer.asked) * 1000, 1)
        found["answered_leader"] = loss.answer.leader
    if loss.ended is not None:
        found["process_ended_ms"] = round((now - loss.ended) * 1000, 1)
    if loss.trace.reach is not None:
        found["connection"] = loss.trace.reach
    late = loss.trace.late_answers(now)
    if late:
        found["late_answers"] = len(late)
        found["latest_answer_ms"] = round(max(late) * 1000, 1)
    if loss.next_at is not None:
        found["without_leader_ms"] = round(max(0.0, loss.next_at - loss.at) * 1000, 1)
    return found
