"""The programs of examples/ as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .daemon_process import PASSWORD, Daemon, lacking, wait_until
from .deadlines import SECONDS

EXAMPLES = Path(__file__).parents[2] / "examples"
VENV_BIN = Path(sys.executable).parent
GOPATH = Path("/usr/share/gocode")
BUILD_SECONDS = 120.0


class Watcher:
    """A running example, and the lines that it has printed, each with the time at which it came."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[tuple[float, str]] = []
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    def printed(self, *parts: str) -> float | None:
        """When a line with all of these came; None if it did not yet."""
        return next((at for at, line in self.lines if all(part in line for part in parts)), None)

    def wait(self, *parts: str) -> float:
        try:
            wait_until(lambda: self.printed(*parts) is not None or self.process.poll() is not None)
        finally:
            at = self.printed(*parts)
            assert at is not None, f"{parts} not in {self.lines[-20:]}, exit code {self.process.poll()}"
        return at


@contextmanager
def watching(
    daemon: Daemon, *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Watcher]:
    """An example as a process; it and what it started are ended with the block."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={
            **os.environ,
            "HELIOSD_URL": daemon.url,
            "HELIOSD_USER": "admin",
            "HELIOSD_PASSWORD": PASSWORD,
            "PATH": f"{os.environ['PATH']}:{VENV_BIN}",
            **(env or {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watcher = Watcher(process)
    try:
        yield watcher
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(SECONDS)
        watcher.thread.join(SECONDS)
        assert process.stdout is not None
        process.stdout.close()


def go_client(folder: Path) -> Path:
    """Built into `folder`."""
    if not (GOPATH / "src/github.com/gorilla/websocket").is_dir():
        lacking("golang-github-gorilla-websocket-dev is not installed (make test installs it where it may)")
    program = folder / "watch"
    subprocess.run(
        ["go", "build", "-o", program, "."],
        cwd=EXAMPLES / "go",
        env={**os.environ, "GO111MODULE": "off", "GOPATH": str(GOPATH)},
        check=True,
        timeout=BUILD_SECONDS,
    )
    return program
