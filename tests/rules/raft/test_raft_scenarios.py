"""The figures and rules of the Raft paper, and faults that other implementations had, as readable transcripts.

`pytest tests/rules/raft/test_raft_scenarios.py --rewrite` writes what comes of the steps now; read the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.raft_scenarios import rewritten

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_goes_as_its_transcript_says(path: Path, pytestconfig: pytest.Config) -> None:
    text = rewritten(path)
    if pytestconfig.getoption("--rewrite"):
        path.write_text(text)
    assert path.read_text() == text


def test_each_scenario_of_a_fault_names_its_source() -> None:
    faults = [path for path in SCENARIOS if path.stem.startswith("fault_")]
    assert len(faults) >= 10
    for path in faults:
        assert "\n# Source: https://" in path.read_text(), path
