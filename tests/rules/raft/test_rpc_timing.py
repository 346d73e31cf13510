from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliosd.raft.messages import Probe, ProbeAnswer
from heliosd.raft.simulation.observations import RoundTrip, Unanswered
from heliosd.raft.simulation.rpc_timing import RpcTimer

TIMEOUT = 100


def test_a_call_is_answered_once_or_times_out_once() -> None:
    timer = RpcTimer(TIMEOUT)
    timer.sent("b", Probe(1))
    timer.sent("b", Probe(2))
    assert timer.arrived(5, "b", ProbeAnswer(1)) == [RoundTrip("b", "probe", 4)]
    assert timer.arrived(6, "b", ProbeAnswer(1)) == []
    assert timer.arrived(102, "b", ProbeAnswer(2)) == [Unanswered("b", "probe")]
    assert timer.expired(1000) == []


def test_what_is_forgotten_neither_times_out_nor_overtakes() -> None:
    timer = RpcTimer(TIMEOUT)
    for peer in "bc":
        timer.sent(peer, Probe(1))
        timer.sent(peer, Probe(2))
        timer.received(3, peer, ProbeAnswer(2))
    timer.forget("b")
    timer.sent("b", Probe(3))
    assert timer.expired(200) == [Unanswered("c", "probe", overtaken=True), Unanswered("b", "probe")]
    timer.forget()
    timer.sent("c", Probe(1))
    assert timer.expired(200) == [Unanswered("c", "probe")]


@given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from(["", "quick", "late"])), max_size=30))
def test_a_call_is_overtaken_if_one_that_was_sent_later_has_been_answered(
    calls: list[tuple[int, str]],
) -> None:
    """Calls at growing ticks: each is not answered, answered one tick later, or one tick before it times out."""
    timer, sent = RpcTimer(TIMEOUT), 0
    events: list[tuple[int, int, str]] = []
    for pause, fate in calls:
        sent += pause
        events.append((sent, sent, "sent"))
        if fate:
            events.append((sent + (1 if fate == "quick" else TIMEOUT - 1), sent, "answered"))
    found: list[tuple[int, bool]] = []
    answered: dict[int, int] = {}
    unanswered = [at for at, _, what in events if what == "sent"]
    for at, of, what in sorted(events, key=lambda each: (each[0], each[2])):
        found += [(at, each.overtaken) for each in timer.expired(at)]
        if what == "sent":
            timer.sent("b", Probe(of))
        else:
            assert timer.received(at, "b", ProbeAnswer(of)) == RoundTrip("b", "probe", at - of)
            answered[of] = at
            unanswered.remove(of)
    found += [(sent + TIMEOUT, each.overtaken) for each in timer.expired(sent + TIMEOUT)]
    assert [overtaken for _, overtaken in found] == [
        any(later > call and at < when for later, at in answered.items())
        for call, (when, _) in zip(unanswered, found, strict=True)
    ]
