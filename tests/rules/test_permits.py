"""When a member may be stopped, and what the state machine keeps of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.metric_commands import RegisterMetric, encode_command
from heliosd.cluster.permits import (
    EndPermit,
    GrantPermit,
    Permit,
    PermitCommand,
    PermitState,
    RenewPermit,
    check_quorum,
)
from heliosd.cluster.simulated.state_machine import MetricStateMachine
from heliosd.errors import Conflict, RequestRefused

FIVE = {each: f"name-{each}" for each in "abcde"}


def permit(number: int = 1, *, at: float = 0.0, seconds: float = 10.0) -> Permit:
    return Permit(id=f"p{number}", member="a", user="ann", granted_at=at, expires_at=at + seconds)


@given(st.sets(st.sampled_from("abcde")), st.sampled_from("abcdex"))
def test_a_member_may_be_stopped_exactly_if_a_quorum_of_the_voters_is_left(
    alive: set[str], member: str
) -> None:
    if len(alive - {member}) >= 3:
        check_quorum(member, FIVE, alive)
        return
    with pytest.raises(Conflict, match=r"of 5 voters would be left, and 3 are needed") as refused:
        check_quorum(member, FIVE, alive)
    for missing in set(FIVE) - alive - {member}:
        assert FIVE[missing] in refused.value.message


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["grant", "stale", "renew", "end"]), st.integers(0, 6), st.integers(1, 20)),
    max_size=30,
)


@given(ACTIONS)
def test_no_two_permits_are_ever_out_together(actions: list[tuple[str, int, int]]) -> None:
    state, now, out = PermitState(), 0.0, dict[str, float]()
    for number, (action, pause, seconds) in enumerate(actions):
        now += pause
        newest = f"p{state.grants}"
        command: PermitCommand
        match action:
            case "grant" | "stale":
                known = state.grants - (action == "stale")
                command = GrantPermit(permit(state.grants + 1, at=now, seconds=seconds), known, now)
            case "renew":
                command = RenewPermit(newest, now + seconds, now)
            case _:
                command = EndPermit(newest, now)
        try:
            state = state.after(command)
        except RequestRefused:
            assert action != "grant" or any(end > now for end in out.values()), number
            continue
        assert action != "stale"
        if action == "end":
            del out[newest]
        else:
            out[f"p{state.grants}"] = now + seconds
        assert sum(end > now for end in out.values()) <= 1


def test_a_snapshot_keeps_the_permit_and_reads_those_of_before() -> None:
    before = MetricStateMachine()
    before.apply(encode_command(RegisterMetric(name="app_a", type="gauge", at=1.0)))
    assert before.encode() == before.metrics.encode()
    old = before.encode()
    assert before.apply(msgspec.json.encode(GrantPermit(permit(), 0, 0.0))) is not None
    after = MetricStateMachine()
    after.restore(before.encode())
    assert after.permits == before.permits
    assert after.metrics.views() == before.metrics.views()
    assert isinstance(after.apply(msgspec.json.encode(GrantPermit(permit(2), 1, 0.0))), Conflict)
    after.restore(old)
    assert after.permits == PermitState()
    assert after.metrics.views() == before.metrics.views()
