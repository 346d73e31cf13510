"""Outages that this node has seen and that the log lacks."""

from __future__ import annotations

from heliosd.cluster.etcd.mirror import PresentObserver
from heliosd.cluster.etcd.outages import KEPT_SECONDS, Outages

OBSERVER = PresentObserver(id="node-2", version="1", since="2026-01-01T00:00:00Z")


def test_an_outage_beside_the_observer_is_remembered_until_that_observers_presence_has_ended() -> None:
    outages = Outages("node-1")
    outages.noticed("b", OBSERVER, 0.0)
    outages.retain({"b"}, "node-2", 1.0)
    outages.retain({"b"}, "node-2", 1.0 + KEPT_SECONDS - 0.1)
    assert outages.to_log("node-2", {}) == {"b"}
    outages.retain({"b"}, "node-2", 1.0 + KEPT_SECONDS)
    assert outages.to_log("node-2", {}) == set()


def test_another_leader_makes_a_presence_last_longer_and_so_the_memory_of_an_outage() -> None:
    outages = Outages("node-1")
    outages.noticed("b", OBSERVER, 0.0)
    outages.retain({"b"}, "node-2", 1.0)
    outages.leader_elected()
    outages.retain({"b"}, "node-2", 10.0)
    outages.retain({"b"}, "node-2", 1.0 + KEPT_SECONDS)
    assert outages.to_log("node-2", {}) == {"b"}
