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
ADDRESS = "127.0.0.1:8080"
"""That `make run` listens on."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As after a clone and the installation, but for the port, which is one that no other program has."""
    (tmp_path / "scripts").mkdir()
    address = f"127.0.0.1:{free_port()}"
    for name in ("scripts/run", "config.example.toml"):
        shutil.copy2(REPOSITORY / name, tmp_path / name)
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert ADDRESS in text
        (tmp_path / name).write_text(text.replace(ADDRESS, address), encoding="utf-8")
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
def running_script(checkout: Path) -> Iterator[Run]:
    process = subprocess.Popen(
        [checkout / "scripts" / "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("HELIOSD_")},
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
    return httpx.post(f"{address}/api/auth/login", json=body, timeout=SECONDS).status_code


def test_it_prints_an_address_and_a_password_that_work_until_ctrl_c(checkout: Path) -> None:
    with running_script(checkout) as run:
        password = run.printed["password"]
        assert log_in(run, password) == 200
        assert log_in(run, password + "x") == 401
        assert "<title>heliosd</title>" in httpx.get(run.printed["dashboard"], timeout=SECONDS).text
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(SECONDS) == 0
    with running_script(checkout) as again:
        assert again.printed["password"] == password
        assert log_in(again, password) == 200
