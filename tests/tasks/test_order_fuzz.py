"""The hub under random actions, held against the model of what each client may be sent.

A failure names its seed and the actions that are left when it is shrunk. `python -m tests.support.hub_fuzzer SEED`
runs it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.client_record import Violation
from tests.support.hub_fuzzer import broken_rule, check, plan_of, shrunk
from tests.support.hub_mutants import MUTANTS, Mutant
from tests.support.order_model import ClientModel
from tests.support.server_record import Event, Server

SEEDS = range(150)


def test_random_actions_break_no_rule() -> None:
    assert check(SEEDS) == len(SEEDS)


@pytest.mark.slow
def test_5000_seeds_of_random_actions_break_no_rule() -> None:
    assert check(range(5000)) == 5000


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_planted_fault_is_found(mutant: Mutant, tmp_path: Path) -> None:
    assert mutant.run(tmp_path)


def test_a_plan_runs_the_same_way_every_time() -> None:
    assert plan_of(7) == plan_of(7)
    assert plan_of(7) != plan_of(8)
    assert {repr(broken_rule(plan_of(7))) for _ in range(3)} == {"None"}


def test_a_broken_rule_is_found_and_shrunk_to_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: ClientModel, message: Mapping[str, object]) -> None:
        if message["type"] == "status":
            raise Violation("planted")

    monkeypatch.setattr(ClientModel, "receive", refuse)
    assert isinstance(broken_rule(plan_of(3)), Violation)
    assert [action.name for action in shrunk(plan_of(3)).actions] == ["join"]
    with pytest.raises(AssertionError, match=r"seed 3, .*planted"):
        check([3])


def keep_all(_kind: str, data: object) -> object:
    return True if data is None else data


STATUS = {"as_of_seq": 0, "moment": 1, "leader": "", "peers": [], "metrics": {}, "all_metrics": {}}
WRONG = [
    ({"type": "peer_change", "seq": 1, "data": {}},),
    ({"type": "status", "data": STATUS}, {"type": "peer_change", "seq": 2, "data": {"peer_id": "b"}}),
    ({"type": "status", "data": STATUS}, {"type": "status", "data": {**STATUS, "as_of_seq": 1}}),
    (
        {"type": "status", "data": STATUS},
        {"type": "gap", "data": {"from_seq": 1, "to_seq": 2, "dropped": 1, "reason": "slow_consumer"}},
    ),
    ({"type": "status", "data": STATUS}, {"type": "status_update", "data": {"moment": 0}}),
    ({"type": "status", "data": STATUS}, {"type": "custom_metrics", "data": {"a": {"value": 1}}}),
    ({"type": "status", "data": STATUS}, {"type": "pong", "id": 1}),
]


@pytest.mark.parametrize("messages", WRONG)
def test_the_model_refuses(messages: tuple[dict[str, object], ...]) -> None:
    events = {seq: Event("peer_change", {"peer_id": name}) for seq, name in ((1, "a"), (2, "b"))}
    model = ClientModel(Server({"E": events}, {"E": 0}), keep_all, "E", 0)
    *fine, wrong = messages
    for message in fine:
        model.receive(message)
    with pytest.raises(Violation):
        model.receive(wrong)
