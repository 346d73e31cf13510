"""What `make run` leads to: an address, a user and a password, in a terminal or not, until Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.deadlines import SECONDS
from tests.support.ports import free_port

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As after a clone and the installation."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/run", "scripts/port-is-free", "scripts/break", "config.example.toml", "Makefile"):
        shutil.copy2(REPOSITORY / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


class Run:
    """The running script. `printed` is what it says after the daemon has come up, by its first words."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed: dict[str, str] = {}
        self.complete = threading.Event()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.fullmatch(r"  (dashboard|user|password) +(\S.*)\n", line):
                self.printed[found[1]] = found[2]
            if "password" in self.printed:
                self.complete.set()


@contextmanager
def running_script(checkout: Path, port: int) -> Iterator[Run]:
    process = subprocess.Popen(
        [checkout / "scripts" / "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=kept_environment() | {"PORT": str(port)},
    )
    run = Run(process)
    try:
        assert run.complete.wait(SECONDS), run.printed
        yield run
    finally:
        process.terminate()
        process.wait(SECONDS)
        run.thread.join(SECONDS)
        assert process.stdout is not None
        process.stdout.close()


def log_in(run: Run, password: str) -> int:
    body = {"username": run.printed["user"], "password": password}
    address = run.printed["dashboard"].rstrip("/")
    return httpx.post(f"{address}/api/auth/login", json=body, timeout=SECONDS, verify=False).status_code


def kept_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("HELIOS", "MAKE"))}


def command(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=checkout,
        env=kept_environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_it_prints_an_address_and_a_password_that_work_until_ctrl_c(checkout: Path) -> None:
    port = free_port()
    with running_script(checkout, port) as run:
        password = run.printed["password"]
        assert run.printed["dashboard"] == f"http://127.0.0.1:{port}/"
        assert log_in(run, password) == 200
        assert log_in(run, password + "x") == 401
        assert (
            "<title>heliosd</title>"
            in httpx.get(run.printed["dashboard"], timeout=SECONDS, verify=False).text
        )
        # What the banner names works.
        assert "node-2" in command(checkout, ".run/heliosd", "members").stdout
        assert "node-3: crashed" in command(checkout, "scripts/break", "node-3").stdout
        assert "crashed" not in command(checkout, "scripts/break").stdout
        taken = command(checkout, "make", "run", f"PORT={port}")
        assert (taken.returncode, taken.stdout) == (2, "")
        assert f"Port {port} of 127.0.0.1 is taken" in taken.stderr
        assert f"make run PORT={port + 1}" in taken.stderr
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(SECONDS) == 0
    with running_script(checkout, port) as again:
        assert again.printed["password"] == password
        assert log_in(again, password) == 200
