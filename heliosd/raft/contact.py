"""When a majority was last known to follow a leader: for CheckQuorum (thesis 6.2) and ReadIndex (thesis 6.4)."""

from __future__ import annotations

from . import membership, quorum
from .membership import ChangeRefused
from .state import NEVER, ConfirmedRead, NodeState


def contact_time(node: NodeState) -> int:
    """The tick at which a majority was last known to follow: it answered what was sent then. `NEVER`: the leader
    is alone."""
    progress = node.progress
    return quorum.reached_by_majority(
        [NEVER if member == node.id else progress[member].heard_at for member in node.membership]
    )


def contact_due(node: NodeState) -> int | None:
    """The tick at which the leader steps down unless a majority answers before (thesis 6.2); None: it is alone."""
    contact = contact_time(node)
    return None if contact == NEVER else contact + node.timing.election


def earlier_contact_due(node: NodeState, due: int) -> int:
    """The earlier one of `due` and `contact_due`, which never goes back while the membership stays: most often the
    last one that was computed is late enough."""
    members, known = node.last_contact_due
    if members is not node.log.members or known < due:
        found = contact_due(node)
        known = NEVER if found is None else found
        node.last_contact_due = node.log.members, known
    return min(due, known)


def request_read(node: NodeState, now: int, serial: int) -> None:
    """Note the commit index, and have a majority confirm that no other member leads since (thesis 6.4).

    Only heartbeats that are sent after the request count, so the next ones are due in the next tick. Raises
    `ChangeRefused("busy")` before the first commit of the term: until then the commit index may be an old one.
    """
    if not membership.committed_in_term(node):
        raise ChangeRefused("busy")
    node.reads.append((now, ConfirmedRead(serial, node.commit)))
    node.heartbeat_due = min(node.heartbeat_due, now + 1)
    confirm_reads(node)


def confirm_reads(node: NodeState) -> None:
    """Return the reads that were requested before a majority was last known to follow."""
    contact = contact_time(node)
    while node.reads and node.reads[0][0] < contact:
        node.confirmed_reads.append(node.reads.popleft()[1])
