"""Why a leader is it no longer, as far as its own answers show. Pure."""

from __future__ import annotations

from heliosd.protocol.events import Cause

from .election import MemberAnswer

SILENT_SECONDS = 1.5
"""A member that is polled every second and has not answered for so long is silent."""
PROMPT_SECONDS = 0.1


def loss_cause(
    leader: str, answer: MemberAnswer | None, now: float, *, removed: bool
) -> tuple[Cause, dict[str, float]]:
    """The cause, and the evidence from which it is concluded. `answer` is the last one of the leader that was.

    `removed`: the list of members has it no longer. A leader that hands over answers promptly and follows the next
    one at once; one that was too slow, or lost its majority, answers late or without a leader.
    """
    if removed:
        return "removed", {}
    if answer is None:
        return "unknown", {}
    silent = now - answer.at
    took = answer.at - answer.asked
    evidence = {"last_answer_ms": round(silent * 1000, 1), "answer_took_ms": round(took * 1000, 1)}
    if answer.unanswered is not None or silent > SILENT_SECONDS:
        return "stopped", evidence
    if answer.leader != leader:
        return "transfer" if answer.leader and took <= PROMPT_SECONDS else "stepped_down", evidence
    return "unknown", evidence
