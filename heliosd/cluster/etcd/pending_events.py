"""Which events a node wants in the log: the difference between what the node sees and what the log says.

Nodes that see the same derive the same events with the same dedupe keys. What a node sees is compared with the
log's own record, not with the node's memory, so a node that restarts logs nothing twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct, field, structs

from heliosd.protocol.events import Cause, Evidence, PeerChanged, StateChanged

from .event_log import Append, LogHead, LogItem, MembersRecord, NewMembers, SeenMembers
from .members import KnownMember, differences


class Observed(Struct, frozen=True, kw_only=True):
    """What a node has observed of a leader's loss, and of the election after it."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Member id -> name."""
    lost_at: float | None = None
    elected_at: float | None = None
    """Unix seconds; None: this node has not seen it itself."""
    cause: Cause | None = None
    evidence: Evidence | None = None


NOTHING_OBSERVED = Observed()


def leader_events(head: LogHead, term: int, leader: str, seen: Observed = NOTHING_OBSERVED) -> Append:
    """The events after which the log says what is seen: `leader` leads in `term`. Empty if it says so already.

    With "" no leader is known, and `term` is that of the lost leader: the one that this node saw, or else the one
    in the head that it had read at the time of the observation. So the loss of a leader that was elected after the
    observation is never logged. A leader of a term below the head's is outdated and ignored.
    """
    lost = _lost(head, seen) if head.leader else ()
    if not leader:
        return Append(items=lost if term >= head.term else ())
    if term < head.term or (term == head.term and head.leader):
        return Append()
    elected = elected_event(leader, term, seen, after=head.term)
    return Append(items=(*lost, LogItem(f"elected:{term}:{leader}:{head.turn}", elected)))


def membership_events(
    seen: SeenMembers, actual: Sequence[KnownMember], as_of: int, learners: Collection[str] = ()
) -> Append | None:
    """The events after which the log has these members (as `members.known` gives them). One that is new to the log
    and is among `learners`, the ids of those that were learners, is added as a learner: its promotion comes next.

    `as_of` is a revision that the store of the member that was asked had before it was asked for the list. None:
    that is older than the recorded list, so the new list may be older too; ask again. (etcd 3.4 answers a member
    list from what that member has applied.)
    """
    if as_of < seen.mod_revision:
        return None
    before = seen.record
    old = set(learners) if before is None else {member.id for member in before.members}
    actual = [
        structs.replace(each, learner=True) if each.id in learners and each.id not in old else each
        for each in actual
    ]
    ids = {member.id for member in actual}
    after = MembersRecord(
        members=tuple(actual),
        unhealthy=() if before is None else tuple(each for each in before.unhealthy if each in ids),
    )
    if after == before:
        return Append()
    changes = () if before is None else differences(before.members, actual)
    return _peers(seen, after, changes)


def health_event(member: KnownMember, *, healthy: bool) -> PeerChanged:
    """A member is healthy again, or is not any more."""
    return PeerChanged(
        event_type="healthy" if healthy else "unhealthy",
        peer_id=member.id,
        peer_address=member.address,
        address_kind=member.address_kind,
        peer_name=member.name,
    )


def health_events(seen: SeenMembers, healthy: Mapping[str, bool]) -> Append:
    """The events after which the log has the health of these members; others stay as they are."""
    before = seen.record
    if before is None:
        return Append()
    changes: list[PeerChanged] = []
    unhealthy = set(before.unhealthy)
    for member in before.members:
        was = member.id not in unhealthy
        now = healthy.get(member.id, was)
        if now != was:
            changes.append(health_event(member, healthy=now))
            unhealthy ^= {member.id}
    if not changes:
        return Append()
    return _peers(seen, MembersRecord(members=before.members, unhealthy=tuple(sorted(unhealthy))), changes)


def elected_event(leader: str, term: int, seen: Observed, *, after: int = 0) -> StateChanged:
    """`after`: the term of the state change before, 0 if it is not known."""
    name = seen.names.get(leader, "")
    return StateChanged(
        old_state="Follower",
        new_state="Leader",
        term=term,
        leader=leader,
        member=leader,
        observed_at=seen.elected_at,
        terms_unseen=(after + 1, term - 1) if 0 < after < term - 1 else None,
        leader_name=name,
        member_name=name,
    )


def lost_event(leader: str, term: int, seen: Observed) -> StateChanged:
    return StateChanged(
        old_state="Leader",
        new_state="Unknown",
        term=term,
        leader="",
        member=leader,
        cause=seen.cause,
        evidence=seen.evidence,
        observed_at=seen.lost_at,
        member_name=seen.names.get(leader, ""),
    )


def _lost(head: LogHead, seen: Observed) -> tuple[LogItem, ...]:
    lost = lost_event(head.leader, head.term, seen)
    return (LogItem(f"lost:{head.term}:{head.leader}:{head.turn}", lost),)


def _peers(seen: SeenMembers, record: MembersRecord, changes: Sequence[PeerChanged]) -> Append:
    return Append(
        items=tuple(
            LogItem(f"member:{change.event_type}:{change.peer_id}:{seen.mod_revision}", change)
            for change in changes
        ),
        members=NewMembers(record=record, instead_of=seen.mod_revision),
    )
