"""Which conditions alerts find in the event log."""

from __future__ import annotations

from heliosd.alerts.conditions import MAX_REMOVED, Conditions, ConditionState, Observation
from heliosd.protocol.events import PeerChanged, Stamped
from heliosd.protocol.server_messages import of_event
from tests.support.metric_readings import START, Readings


def test_of_removed_peers_only_the_newest_are_remembered() -> None:
    conditions = Conditions("node-1", ConditionState())
    closed = []
    for seq in range(1, MAX_REMOVED + 4):
        removed = PeerChanged(event_type="removed", peer_id=f"peer-{seq}", peer_address="")
        closed += conditions.apply(of_event(Stamped(seq, float(seq), removed)), "E")
    remembered = [each.subject for each in conditions.open("peer_removed")]
    assert remembered == [f"peer-{seq}" for seq in range(4, MAX_REMOVED + 4)]
    assert [each.occurrence.subject for each in closed] == ["peer-1", "peer-2", "peer-3"]
    assert len(conditions.stored().open) == MAX_REMOVED


def test_a_member_votes_as_the_status_says_whatever_its_role_looks_like() -> None:
    readings = Readings(silent_learners=frozenset({"node-3"}))
    for peer in ("node-2", "node-3"):
        readings.latency.add_peer(peer, "", START)
    assert Observation.of(readings.status()).voters == {"node-1", "node-2"}
