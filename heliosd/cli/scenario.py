"""A scenario for `heliosd simulate`: faults and changes at given times, as TOML. Pure.

Members are named by id, or by what they are when the step is played: see `resolve`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(ge=0, le=86_400)]
GROUPS = ("leader", "follower", "followers", "this", "others", "minority", "majority", "all")
MEMBER = "member-"
"""`member-2` is the second of all ids in their order."""
HEALED: Mapping[str, Any] = {
    "partitions": [],
    "crashed": [],
    "paused": [],
    "loss": 0.0,
    "disk_latency_ms": {},
    "clock_rate": {},
    "clock_offset_ms": {},
}
"""What `heal` sets; the latency becomes what it was before the scenario."""


class BadScenario(ValueError):
    """The text says what is wrong."""


class Storm(Struct, frozen=True, forbid_unknown_fields=True):
    """Changes of metrics `storm_1` to `storm_COUNT`, `rate` a second in all, for `seconds`."""

    rate: Annotated[float, Meta(gt=0, le=1000)]
    seconds: Seconds
    count: Annotated[int, Meta(ge=1, le=100)] = 1


class ScriptedFaults(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """As `PUT /api/cluster/simulation`, with names that are resolved when it is played."""

    partitions: list[list[str]] | None = None
    crashed: list[str] | None = None
    paused: list[str] | None = None
    loss: float | None = None
    latency_ms: float | None = None
    disk_latency_ms: dict[str, float] | None = None
    clock_rate: dict[str, float] | None = None
    clock_offset_ms: dict[str, float] | None = None


class Step(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What happens at one time, in this order: heal, faults, the rest."""

    at: Seconds
    jitter: Seconds = 0.0
    """Later by up to so much, drawn by the seed."""
    every: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    times: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """With `every`: how often."""
    say: str = ""
    """Printed on standard error when it is played."""
    heal: bool = False
    faults: ScriptedFaults | None = None
    transfer: str = ""
    """To this member; "any": to the most advanced one."""
    add: str = ""
    """The id of a new member."""
    remove: str = ""
    snapshot: bool = False
    storm: Storm | None = None


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    about: str
    steps: Annotated[list[Step], Meta(min_length=1)]
    seed: int = 1
    members: Annotated[int, Meta(ge=1, le=9)] = 3
    """The cluster needs at least so many; `--own` starts so many."""
    settle: Seconds = 2.0
    """Seconds between the last step and the healing at the end."""


class Planned(Struct, frozen=True):
    """A step at its own time, in seconds from the start."""

    at: float
    step: Step


def parse(text: str) -> Scenario:
    """Raises `BadScenario`."""
    try:
        scenario = msgspec.convert(tomllib.loads(text), Scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as wrong:
        raise BadScenario(str(wrong)) from None
    for number, step in enumerate(scenario.steps, 1):
        done = (
            step.heal,
            step.faults,
            step.transfer,
            step.add,
            step.remove,
            step.snapshot,
            step.storm,
            step.say,
        )
        if not any(done):
            raise BadScenario(f"step {number} does nothing")
        if step.times > 1 and step.every is None:
            raise BadScenario(f"step {number} has times and no every")
    return scenario


def planned(scenario: Scenario, rng: Random, speed: float) -> list[Planned]:
    """The steps in the order in which they are played, at `speed` times the script's pace."""
    plan = [
        Planned((step.at + turn * (step.every or 0.0) + rng.random() * step.jitter) / speed, step)
        for step in scenario.steps
        for turn in range(step.times)
    ]
    return sorted(plan, key=lambda each: each.at)


def resolve(names: Sequence[str], ids: Sequence[str], leader: str, this: str, rng: Random) -> list[str]:
    """The ids that these names mean now, each once.

    `leader`; `follower`: one of the others, drawn; `followers`; `this`: the daemon's own member; `others`: all but
    that; `minority`: the leader and as many more as are less than a quorum; `majority`: the rest; `all`;
    `member-N`. Raises `BadScenario` for a name that means nobody.
    """
    followers = [each for each in ids if each != leader]
    fewest = [leader, *followers][: (len(ids) - 1) // 2] if leader else list(ids)[: (len(ids) - 1) // 2]
    meant: dict[str, None] = {}
    for name in names:
        match name:
            case _ if name in ids:
                found = [name]
            case "leader":
                found = [leader or ids[0]]
            case "follower":
                found = [rng.choice(followers or list(ids))]
            case "followers":
                found = followers
            case "this":
                found = [this]
            case "others":
                found = [each for each in ids if each != this]
            case "minority":
                found = fewest
            case "majority":
                found = [each for each in ids if each not in fewest]
            case "all":
                found = list(ids)
            case _ if name.startswith(MEMBER) and name.removeprefix(MEMBER).isdecimal():
                place = int(name.removeprefix(MEMBER))
                found = list(ids)[place - 1 : place] if place else []
            case _:
                found = []
        if not found and name not in {"minority", "followers", "others"}:
            raise BadScenario(f"no member is called {name!r}; known are {', '.join([*ids, *GROUPS])}")
        meant |= dict.fromkeys(found)
    return list(meant)


def faults_now(
    faults: ScriptedFaults, ids: Sequence[str], leader: str, this: str, rng: Random
) -> dict[str, Any]:
    """The body of the PUT. Raises `BadScenario`."""

    def meant(names: Sequence[str]) -> list[str]:
        return resolve(names, ids, leader, this, rng)

    body: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(faults).items():
        match value:
            case None:
                continue
            case dict():
                body[name] = {member: number for who, number in value.items() for member in meant([who])}
            case list() if name == "partitions":
                taken: set[str] = set()
                groups = []
                for group in value:
                    groups.append([member for member in meant(group) if member not in taken])
                    taken.update(groups[-1])
                body[name] = [group for group in groups if group]
            case list():
                body[name] = meant(value)
            case _:
                body[name] = value
    return body
