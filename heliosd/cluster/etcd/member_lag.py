"""Which members are behind the others in applying the log. Pure."""

from __future__ import annotations

from .view import ClusterView

LAGGING_ENTRIES = 100
LAGGING_SECONDS = 1.5
"""A member is behind when it has applied so many entries less than another one has committed, for so long."""


class MemberLag:
    """Call `measure` after each poll."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        """Member that is behind -> since when."""

    def measure(self, view: ClusterView, now: float) -> None:
        statuses = {each.id: view.last_status(each.id) for each in view.members}
        # The last status of a member that is down may be from before the cluster was restored from a backup.
        answering = statuses.keys() - view.failures().keys()
        committed = max((status.raft_index for each in answering if (status := statuses[each])), default=0)
        for member, status in statuses.items():
            if status is not None and status.raft_applied_index < committed - LAGGING_ENTRIES:
                self._since.setdefault(member, now)
            else:
                self._since.pop(member, None)

    def is_behind(self, member: str, now: float) -> bool:
        return now - self._since.get(member, now) >= LAGGING_SECONDS
