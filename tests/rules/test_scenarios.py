"""Scripts of `heliosd simulate`: what they say, and whom they mean."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cli.scenario import GROUPS, BadScenario, faults_now, parse, planned, resolve

FOLDER = Path(__file__).parents[2] / "examples" / "scenarios"
SCENARIOS = sorted(FOLDER.glob("*.toml"))
IDS = ["a", "b", "c", "d", "e"]


def test_there_are_ten_scenarios() -> None:
    assert len(SCENARIOS) == 10


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_can_be_played(path: Path) -> None:
    scenario = parse(path.read_text())
    ids = [f"node-{serial}" for serial in range(1, scenario.members + 1)]
    plan = planned(scenario, Random(scenario.seed), 1.0)
    assert [each.at for each in plan] == sorted(each.at for each in plan)
    known = [*ids, *(step.add for step in scenario.steps if step.add)]
    for each in plan:
        if each.step.faults is not None:
            assert faults_now(each.step.faults, known, "node-2", "node-1", Random(1))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "about"),
        ('about = "x"\nsteps = []', "steps"),
        ('about = "x"\n[[steps]]\nat = 1', "step 1 does nothing"),
        ('about = "x"\n[[steps]]\nat = -1\nheal = true', "at"),
        ('about = "x"\n[[steps]]\nat = 1\nheal = true\ntimes = 2', "no every"),
        ('about = "x"\n[[steps]]\nat = 1\nfaults = { crash = ["a"] }', "crash"),
        ('about = "x"\n[[steps]]\nat = 1\nhea = true', "hea"),
        ("about = ", "end of document"),
    ],
)
def test_what_is_wrong_with_a_script_is_named(text: str, wrong: str) -> None:
    with pytest.raises(BadScenario, match=wrong):
        parse(text)


def test_names_mean_members() -> None:
    def meant(*names: str) -> list[str]:
        return resolve(names, IDS, "c", "a", Random(1))

    assert meant("leader") == ["c"]
    assert meant("followers") == ["a", "b", "d", "e"]
    assert meant("this", "this") == ["a"]
    assert meant("others") == ["b", "c", "d", "e"]
    assert meant("minority") == ["c", "a"]
    assert meant("majority") == ["b", "d", "e"]
    assert meant("member-2", "e") == ["b", "e"]
    assert meant("follower")[0] in meant("followers")
    for name in ("member-6", "member-0", "nobody", ""):
        with pytest.raises(BadScenario, match="no member is called"):
            meant(name)


@given(st.integers(1, 9), st.data())
def test_minority_and_majority_are_all_and_only_one_has_a_quorum(size: int, data: st.DataObject) -> None:
    ids = [f"n{serial}" for serial in range(size)]
    leader = data.draw(st.sampled_from(["", *ids]))
    few = resolve(["minority"], ids, leader, ids[0], Random(1))
    many = resolve(["majority"], ids, leader, ids[0], Random(1))
    assert sorted(few + many) == sorted(ids)
    assert len(few) < size // 2 + 1 <= len(many)
    for name in GROUPS:
        assert set(resolve([name], ids, leader, ids[0], Random(1))) <= set(ids)


def test_a_member_stands_in_one_group_of_a_partition() -> None:
    scenario = parse(
        'about = "x"\n[[steps]]\nat = 1\nfaults = { partitions = [["leader"], ["all"]], loss = 0.5 }'
    )
    faults = scenario.steps[0].faults
    assert faults is not None
    assert faults_now(faults, IDS, "c", "a", Random(1)) == {
        "partitions": [["c"], ["a", "b", "d", "e"]],
        "loss": 0.5,
    }


def test_a_seed_repeats_the_times_and_a_speed_divides_them() -> None:
    scenario = parse('about = "x"\n[[steps]]\nat = 1\nevery = 2\ntimes = 3\njitter = 1\nheal = true')
    one = [each.at for each in planned(scenario, Random(5), 1.0)]
    assert one == [each.at for each in planned(scenario, Random(5), 1.0)]
    assert [round(at, 6) for at in one] == [
        round(each.at * 4, 6) for each in planned(scenario, Random(5), 4.0)
    ]
    assert all(start <= at <= start + 1 for start, at in zip((1, 3, 5), one, strict=True))
