"""What every test may rely on."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from inspect import signature
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.memory_folder import memory_folder

# The same examples in every run, so that a run fails only for a change. Their duration depends on the machine.
settings.register_profile(
    "heliosd", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
# New examples in every run, 25 times as many: make prove-rules.
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
    # Slow tests have their `tmp_path` on the disk.
    if "not slow" in config.option.markexpr and (memory := memory_folder()):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))
    config.addinivalue_line(
        "markers", "needs(*programs): programs that must be installed; missing ones skip, and in CI fail"
    )


def pytest_report_header() -> str:
    """Which etcd the tests use: the first one in PATH, whatever was meant."""
    etcd = shutil.which("etcd")
    if etcd is None:
        return "etcd: none"
    said = subprocess.run([etcd, "--version"], capture_output=True, text=True, check=False)
    return f"{said.stdout.partition(chr(10))[0]}, {etcd}"


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
    for item in items:
        clock = "autojump_clock"
        # pytest-trio uses the clock that a test asks for, and none that only its fixtures ask for.
        if isinstance(item, pytest.Function) and clock in item.fixturenames:
            assert clock in signature(item.function).parameters, f"{item.nodeid} must take {clock} itself"


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
