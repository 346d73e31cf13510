"""Outages of members that this node has seen and that the cluster's log lacks. Pure.

The observer logs the members' health: what it does not log is no event. But the observer and the member beside it
may go down together, as with their machine, and the member be back before the observer's presence has ended: then
nobody was there to log it. So the others remember an outage of the member beside the observer, and log it once
that observer has gone. However many do, the dedupe keys let it be written once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .mirror import PresentObserver

KEPT_SECONDS = 15.0
"""An outage that another node has to log is remembered for so long: until the presence of an observer that was
killed has ended (10 s), and a little longer."""


@dataclass(slots=True)
class _Outage:
    beside: PresentObserver | None
    """The observer then, if that is another node and the member is the one beside it."""
    until: float | None = None
    """Until when it is remembered while another node is the observer; None: it was not looked at yet."""


class Outages:
    """Those that the node `node_id` has seen. Times are monotonic."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._outages: dict[str, _Outage] = {}
        self._logged: dict[str, float] = {}
        """Member -> when the log last had an outage of it."""

    def __bool__(self) -> bool:
        """Whether there is one that the log lacks."""
        return bool(self._outages)

    def noticed(self, member: str, beside: PresentObserver | None, now: float) -> None:
        """This member was seen to be unhealthy, or restarted. `beside`: the observer, if the member is the one
        beside it."""
        # Nodes notice an outage at different times: the log may have this one already.
        logged = now - self._logged.get(member, float("-inf")) < KEPT_SECONDS
        if logged or (beside is not None and beside.id == self._node_id):
            beside = None
        before = self._outages.get(member)
        self._outages[member] = _Outage(beside if before is None else before.beside or beside)

    def logged(self, member: str, now: float) -> None:
        """The log has an outage of this member, or that it was removed."""
        self._logged[member] = now
        self._outages.pop(member, None)

    def leader_elected(self) -> None:
        """A new leader of etcd gives every lease its whole time again, so every presence lasts longer."""
        for each in self._outages.values():
            each.until = None

    def clear(self) -> None:
        """Another cluster answers."""
        self._outages.clear()
        self._logged.clear()

    def retain(self, members: Collection[str], observer: str, now: float) -> None:
        """Forget outages of others than these members, and what the node `observer` has to log ("": there is no
        observer). Call it whenever an outage could be logged."""
        anothers = observer not in ("", self._node_id)
        self._outages = {
            member: each
            for member, each in self._outages.items()
            if member in members and not (anothers and _is_over(each, now))
        }

    def to_log(self, observer: str, present: Mapping[str, PresentObserver]) -> set[str]:
        """The members whose outage this node has to log once they answer again. `present`: every heliosd that is
        present, by its id."""
        if observer == self._node_id:
            return set(self._outages)
        return {member for member, each in self._outages.items() if _has_gone(each.beside, present)}


def _is_over(outage: _Outage, now: float) -> bool:
    """Whether it need not be remembered any longer while another node is the observer."""
    if outage.beside is None:
        return True
    outage.until = now + KEPT_SECONDS if outage.until is None else outage.until
    return now >= outage.until


def _has_gone(observer: PresentObserver | None, present: Mapping[str, PresentObserver]) -> bool:
    """Whether it is present no longer, or is another process of the same name."""
    if observer is None:
        return False
    found = present.get(observer.id)
    return found is None or found.since != observer.since
