"""requirements.lock, constraints.txt and pyproject.toml name the same packages."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]


def normal(name: str) -> str:
    """As PyPI compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(text: str) -> dict[str, str]:
    return {
        normal(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE)
    }


LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = re.findall(r"^LOCKED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def test_the_lock_file_has_the_packages_and_versions_of_the_constraints() -> None:
    assert pinned(LOCK) == pinned(CONSTRAINTS)


def test_every_locked_package_has_hashes() -> None:
    packages = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) == len(pinned(LOCK))
    assert all("--hash=sha256:" in package for package in packages)


def test_every_package_that_make_test_installs_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: each for name, each in project["optional-dependencies"].items() if name in LOCKED}
    named = [*project["dependencies"], *chain(*extras.values())]
    assert {normal(re.split(r"[\[<>=~!; ]", each)[0]) for each in named} <= pinned(LOCK).keys()
