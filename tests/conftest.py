"""What every test may rely on."""

from __future__ import annotations

import gc
import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, so that a run fails only for a change. Their duration depends on the machine.
settings.register_profile(
    "heliosd", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# New examples in every run, ten times as many: make prove-rules.
settings.register_profile("long", settings.get_profile("heliosd"), derandomize=False, max_examples=1000)
settings.load_profile("heliosd")

IN_CI = bool(os.environ.get("CI"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write transcripts anew (tests/rules/raft/scenarios/)"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Collecting makes millions of objects that all stay: searching them for garbage took a third of the time.
    gc.disable()
    config.addinivalue_line(
        "markers", "needs(*programs): programs that must be installed; missing ones skip, and in CI fail"
    )


FOLDERS = ("process", "edges", "tasks", "rules")
"""Of tests/, those with the longest tests first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: a parallel run ends with short ones."""
    items.sort(
        key=lambda item: FOLDERS.index(folder) if (folder := item.path.parts[-2]) in FOLDERS else len(FOLDERS)
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            if shutil.which(program) is None:
                reason = f"{program} is not installed (make test installs it where it may)"
                if IN_CI:
                    pytest.fail(reason)
                pytest.skip(reason)
