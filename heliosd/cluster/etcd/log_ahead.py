"""The leader of the cluster's log, where that is newer than what this node has seen. Pure.

Clients get the events of the log, and a status with `as_of_seq` has the effects of all of them in it. So the log's
leader is shown until this node's own polls have shown it, too.
"""

from __future__ import annotations

from .event_log import LogHead

LOG_AHEAD_SECONDS = 2.5
"""For so long at most: a node that still sees otherwise then has asked all the time, and says what it sees."""


class LogAhead:
    """Times are monotonic."""

    def __init__(self) -> None:
        self._counted = 0, ""
        self._until = 0.0

    def heard(self, head: LogHead, now: float) -> None:
        """The log has this head, and knows more than this node. Not anew with each event: a node that goes on
        seeing otherwise would change its mind with every one."""
        if (head.term, head.leader) != self._counted:
            self._counted = head.term, head.leader
            self._until = now + LOG_AHEAD_SECONDS

    def shown(self, head: LogHead | None, term: int, leader: str, now: float) -> LogHead | None:
        """The head whose leader is to be shown; None: `leader` in `term`, as this node sees it."""
        return head if head is not None and now < self._until and head.ahead_of(term, leader) else None
