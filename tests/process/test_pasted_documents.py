"""Quick start, tutorial and installation, block by block as they are pasted: here (`make prove-docs`), and as a
newcomer in a fresh Debian (`make prove-newcomer`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.browser_page import Tab, browser_running
from tests.support.daemon_process import wait_until
from tests.support.debian_root import DebianRoot, debian_root
from tests.support.pasted import ROOT, Block, Pasted, blocks, copy_of_the_repository, pasting
from tests.support.ports import free_port

pytestmark = pytest.mark.slow

RELEASE = os.environ.get("NEWCOMER_RELEASE", "bookworm")
TO_A_PAGE_SECONDS = 60.0
"""From `make run` in a clone to a page that is logged in, beyond what pip takes to fetch packages."""
CLONE = Path("/root/heliosd")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_SETTINGS = (
    "PIP_INDEX_URL",
    "PIP_CERT",
    "PIP_DEFAULT_TIMEOUT",
    "SSL_CERT_FILE",
    "https_proxy",
    "HTTPS_PROXY",
)
WITHOUT_A_MANAGER = {"systemctl enable --now": "systemctl enable", "sudo systemctl daemon-reload\n": ""}
"""In a chroot systemd does not run: the unit is enabled, and `make prove-deb` starts it."""
LONGER = {"timeout 5 ": "timeout 20 "}
"""A busy machine starts programs slowly."""
BEFORE = "git make curl ca-certificates sudo systemd"
"""What a newcomer's Debian has beside its smallest form."""


def saw(pasted: Pasted, number: int, *parts: str) -> None:
    """The terminal of that number has printed these, or does soon."""
    path = pasted.running[number]
    try:
        wait_until(lambda: all(part in path.read_text() for part in parts))
    except AssertionError as error:
        error.add_note(path.read_text())
        raise


def paste_quick_start(pasted: Pasted) -> None:
    def look(block: Block) -> None:
        if "watch" in block.text:
            saw(pasted, 1, "connected to")
        if "make break" in block.text:
            saw(pasted, 1, "unhealthy")

    pasted.paste("quick-start.md", look=look)
    saw(
        pasted,
        1,
        "node-2",
        "unhealthy",
        "healthy",
        "node-4",
        "jobs_waiting registered",
        "jobs_done registered",
    )
    assert '"recovered":true' in pasted.shell
    assert "Cluster: 4 members" in pasted.shell


def paste_tutorial(pasted: Pasted) -> None:
    def look(block: Block) -> None:
        if block.keeps_running and "watch" in block.text:
            saw(pasted, 1, "connected to")

    pasted.paste("tutorial.md", look=look)
    saw(pasted, 1, "node-2 is ", "no leader in term ", " leads in term ", "unhealthy", " healthy")
    assert "is back" in pasted.shell
    assert "       2  " in pasted.shell  # resumed behind event 1


@pytest.mark.needs("make", "curl")
def test_the_quick_start_works_as_it_is_pasted(tmp_path: Path) -> None:
    port = str(free_port())
    swaps = {"make run": f"make run PORT={port}", "localhost:8080": f"localhost:{port}"}
    with pasting(copy_of_the_repository(tmp_path / "heliosd"), swaps=swaps) as pasted:
        paste_quick_start(pasted)


@pytest.mark.needs("etcd", "curl")
def test_the_tutorial_works_as_it_is_pasted(tmp_path: Path) -> None:
    folder = copy_of_the_repository(tmp_path / "heliosd")
    swaps = {"sudo apt-get install -y etcd-server curl\n": "", **LONGER}
    with pasting(folder, swaps=swaps) as pasted:
        paste_tutorial(pasted)


@contextmanager
def newcomer(folder: Path) -> Iterator[tuple[DebianRoot, list[str]]]:
    """A fresh Debian with a clone of this repository, and what to put before a command that is pasted there."""
    with debian_root(RELEASE, folder) as debian:
        for path in (CERTIFICATES, Path("/etc/resolv.conf"), Path("/etc/hosts")):
            target = debian.path / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        debian.run(
            "sh", "-c", f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {BEFORE}"
        )
        shutil.copy2(CERTIFICATES, debian.path / CERTIFICATES.relative_to("/"))
        subprocess.run(["git", "clone", "-q", ROOT, debian.path / CLONE.relative_to("/")], check=True)
        kept = [f"{name}={os.environ[name]}" for name in PIP_SETTINGS if name in os.environ]
        env = [
            "env",
            "-i",
            "HOME=/root",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            *kept,
        ]
        yield debian, debian.inside(env)


def test_a_newcomer_gets_from_a_clone_to_the_end_of_the_tutorial(tmp_path: Path) -> None:
    port = str(free_port())
    swaps = {"make run": f"make run PORT={port}", "localhost:8080": f"localhost:{port}"}
    with newcomer(tmp_path) as (debian, prefix):
        with pasting(CLONE, prefix=prefix, swaps=swaps) as pasted:
            paste_quick_start(pasted)
        with pasting(CLONE, prefix=prefix, swaps=LONGER) as pasted:
            paste_tutorial(pasted)
        # Once more from a fresh clone, with pip's packages fetched: the time to a page that is logged in.
        again = debian.path / "root/again"
        subprocess.run(["git", "clone", "-q", ROOT, again], check=True)
        began = time.monotonic()
        with pasting(Path("/root/again"), prefix=prefix, swaps=swaps) as pasted, browser_running() as browser:
            first = blocks("quick-start.md")[0]
            pasted.paste_block(first)
            tab = Tab(browser)
            tab.page.goto(f"http://127.0.0.1:{port}/")
            tab.page.fill("#login-username", "admin")
            tab.page.fill("#login-password", (again / ".run/password").read_text().strip())
            tab.page.click("#login-submit")
            tab.page.wait_for_selector("#connection[data-state=live]")
            took = time.monotonic() - began
        print(f"from `make run` to a logged-in page: {took:.1f} s")
        assert took < TO_A_PAGE_SECONDS


def test_a_newcomer_installs_the_package(tmp_path: Path) -> None:
    swaps = WITHOUT_A_MANAGER
    with newcomer(tmp_path) as (debian, prefix), pasting(CLONE, prefix=prefix, swaps=swaps) as pasted:
        pasted.paste("install.md", "Debian and Ubuntu")
        assert "heliosd.service" in debian.run("ls", "/etc/systemd/system/multi-user.target.wants")


def test_a_newcomer_installs_the_wheel(tmp_path: Path) -> None:
    swaps = WITHOUT_A_MANAGER
    with newcomer(tmp_path) as (_, prefix), pasting(CLONE, prefix=prefix, swaps=swaps) as pasted:
        pasted.paste("install.md", "A wheel")
        assert "heliosd 0." in pasted.shell
