"""Runs as traces of etcd's TLA+ specification, held against its invariants (docs/raft.md)."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import raft_checker
from tests.support.raft_chaos import Run
from tests.support.raft_mutants import MUTANTS, planted
from tests.support.raft_plan import plan_of
from tests.support.raft_report import main
from tests.support.raft_trace_checker import INVARIANTS, TraceBroken, TraceChecker

NAMES = {
    *("InitState", "BecomeCandidate", "BecomeFollower", "BecomeLeader", "Commit", "Replicate", "ChangeConf"),
    *("ApplyConfChange", "Ready", "SendSnapshot", "ReceiveSnapshot"),
    *("SendAppendEntriesRequest", "ReceiveAppendEntriesRequest"),
    *("SendAppendEntriesResponse", "ReceiveAppendEntriesResponse"),
    *("SendRequestVoteRequest", "ReceiveRequestVoteRequest"),
    *("SendRequestVoteResponse", "ReceiveRequestVoteResponse"),
}
"""The events of the specification."""


def traced(seed: int) -> list[str]:
    file = io.StringIO()
    Run(plan_of(seed), 600, trace_file=file).run()
    return file.getvalue().splitlines()


def test_traces_have_all_events_of_the_specification_and_break_no_invariant() -> None:
    names = set()
    for seed in (0, 2, 4, 5, 6, 9):
        lines = traced(seed)
        assert TraceChecker().check(lines) == len(lines)
        names |= {json.loads(line)["event"]["name"] for line in lines}
    assert names == NAMES


def test_a_report_writes_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.ndjson"
    assert main(["2", "--events", "300", "--trace", str(file)]) == 0
    assert f"{len(file.read_text().splitlines())} events traced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "seed", "invariant"),
    [
        ("a vote asks for no up-to-date log", 3, "LeaderCompletenessInv"),
        ("an answer leaves before its write is durable", 0, "CommittedIsDurableInv"),
        ("an entry counts on the leader's disk before it is there", 2, "LogInv"),
        ("entries match by their index alone", 4, "the trace"),
    ],
)
def test_a_trace_of_a_run_with_a_planted_fault_breaks_an_invariant(
    name: str, seed: int, invariant: str
) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    file = io.StringIO()
    with planted(mutant):
        chaos = importlib.import_module("tests.support.raft_chaos")
        plan = importlib.import_module("tests.support.raft_plan").plan_of(seed)
        run = chaos.Run(plan, 800, raft_checker.INVARIANTS, trace_file=file)
        try:
            run.run()
        except Exception as error:  # the model finds some faults by itself
            print(error)
    with pytest.raises(TraceBroken) as broken:
        TraceChecker().check(file.getvalue().splitlines())
    assert broken.value.invariant == invariant


class Story:
    """A trace that is written by hand, of members that lead and follow as they like."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._logs: dict[str, int] = {}
        self._state: dict[str, tuple[int, str, int]] = {}

    def add(self, name: str, nid: str, *, conf: str = "ab", **prop: Any) -> None:
        if name.startswith("Become"):
            self._state[nid] = (prop.pop("term"), name.removeprefix("Become"), 0)
        if name == "InitState":
            self._logs[nid] = len(prop["terms"])
        if name == "Replicate":
            self._logs[nid] += 1
        term, role, commit = self._state.get(nid, (0, "Follower", 0))
        if name == "Commit":
            commit = prop.pop("commit")
            self._state[nid] = term, role, commit
        state = {"term": term, "vote": "0", "commit": commit}
        event: dict[str, Any] = {
            "name": name,
            "nid": nid,
            "state": state,
            "role": f"State{role}",
            "prop": prop,
        }
        event |= {"log": self._logs[nid], "conf": [list(conf), []]}
        self.lines.append(json.dumps({"tag": "trace", "event": event}))

    def start(self, nid: str, *terms: int) -> None:
        self.add("InitState", nid, base={"index": 0, "term": 0}, terms=terms)

    def lead(self, nid: str, term: int, entries: int = 0, conf: str = "ab") -> None:
        self.add("BecomeLeader", nid, term=term, conf=conf)
        for _ in range(entries):
            self.add("Replicate", nid, conf=conf)

    def broken(self) -> str:
        with pytest.raises(TraceBroken) as broken:
            TraceChecker().check(self.lines)
        return broken.value.invariant


@pytest.fixture
def story() -> Story:
    begun = Story()
    begun.start("a")
    begun.start("b")
    return begun


def test_two_leaders_of_a_term_are_found(story: Story) -> None:
    story.lead("a", 2)
    story.lead("b", 2)
    assert story.broken() == "MoreThanOneLeaderInv"


def test_two_entries_of_one_index_and_term_are_found(story: Story) -> None:
    story.lead("a", 2, entries=1)
    story.add("BecomeFollower", "a", term=2)
    story.add("BecomeFollower", "b", term=2)
    story.add("Replicate", "b")
    assert story.broken() == "LogMatchingInv"


def test_a_leader_that_lacks_an_entry_of_its_own_term_is_found(story: Story) -> None:
    story.lead("a", 2, entries=2)
    story.start("b", 2, 2)
    story.start("a", 2)
    story.lead("a", 2)
    assert story.broken() == "ElectionSafetyInv"


def test_a_commit_that_no_majority_has_is_found(story: Story) -> None:
    story.lead("a", 2, entries=1, conf="abc")
    story.add("Commit", "a", conf="abc", commit=1)
    assert story.broken() == "QuorumLogInv"


def test_a_log_that_could_win_without_what_is_committed_is_found(story: Story) -> None:
    story.lead("a", 1, entries=1, conf="a")
    story.add("Ready", "a", conf="a", durable=1)
    story.add("Commit", "a", conf="a", commit=1)
    story.lead("b", 2, entries=1)
    assert story.broken() in {"MoreUpToDateCorrectInv", "LeaderCompletenessInv"}


def test_all_eight_invariants_are_named() -> None:
    assert len(set(INVARIANTS)) == 8
