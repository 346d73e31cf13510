"""What every test may rely on."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

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
    share_compiling(config)
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ and config.option.markexpr == "not slow":
        keep_data_in_memory()
    config.addinivalue_line(
        "markers", "needs(*programs): programs that must be installed; missing ones skip, and in CI fail"
    )


MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 4 << 30
"""A whole run leaves some 300 MB there until it ends."""


def keep_data_in_memory() -> None:
    """Have `tmp_path` in memory, where there is enough of it.

    A disk that other work keeps busy may take seconds for one fsync. Then a daemon answers 504, as it should, and a
    test that asks for something else fails. Slow tests use the disk.
    """
    if not os.access(MEMORY, os.W_OK):
        return
    room = os.statvfs(MEMORY)
    runs_programs = not room.f_flag & os.ST_NOEXEC
    if runs_programs and room.f_bavail * room.f_frsize >= ENOUGH_BYTES:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


def share_compiling(config: pytest.Config) -> None:
    """Let each process of a parallel run begin to collect at another file.

    In a fresh clone all files have to be compiled (3 s): so each process finds most of them compiled by the others.
    """
    worker = getattr(config, "workerinput", None)
    if worker is not None and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        files = sorted(str(path) for path in Path(__file__).parent.rglob("test_*.py"))
        first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
        config.args = files[first:] + files[:first]


FOLDERS = ("process", "edges", "tasks", "raft", "rules")
"""Of tests/, those with the longest tests first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: a parallel run ends with short ones. The same order in all processes."""

    def place(item: pytest.Item) -> tuple[int, Path]:
        folder = item.path.parts[-2]
        return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS), item.path

    items.sort(key=place)


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
