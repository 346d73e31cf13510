"""Starts `make run` in a copy of this folder, crashes its leader while a terminal is recorded, and takes a picture
of the dashboard: docs/images/watch.svg and docs/images/dashboard.png.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import expect

from tests.support.browser_page import Tab, browser_running
from tests.support.daemon_process import wait_until
from tests.support.pasted import copy_of_the_repository
from tests.support.ports import free_port
from tests.support.terminals import Terminal, terminal

from .terminal_svg import Frame, film

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
WIDTH, UPPER, LOWER = 100, 19, 11
TITLE = "heliosd watch, while the leader of a simulated cluster of three crashes and comes back"
METRICS = (
    ("jobs_waiting", "gauge", "17"),
    ("jobs_done_total", "counter", "4711"),
    ("queue_bytes", "gauge", "1310720"),
)


@contextmanager
def started(folder: Path) -> Iterator[str]:
    """`make run` in `folder`, and the daemon's URL."""
    port = free_port()
    process = subprocess.Popen(
        ["make", "run", f"PORT={port}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _is_ready(url))
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


class Recorder(threading.Thread):
    """Looks at both terminals ten times a second, until `ended` is set."""

    def __init__(self, upper: Terminal, lower: Terminal) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.ended = threading.Event()
        self._terminals = ((upper, UPPER), (lower, LOWER))

    def run(self) -> None:
        began = time.monotonic()
        while not self.ended.wait(0.1):
            lines: list[str] = []
            for shown, height in self._terminals:
                seen = shown.command("capture-pane", "-e", "-p", "-t", "one").rstrip("\n").split("\n")
                lines += [*seen, *[""] * height][:height]
                lines += ["\x1b[2m" + "─" * WIDTH + "\x1b[0m"] if height == UPPER else []
            self.frames.append(Frame(time.monotonic() - began, tuple(lines)))


def record(folder: Path) -> list[Frame]:
    """The crash of the leader, as `heliosd watch` shows it above the terminal in which it is made."""
    env = {
        "PROMPT_COMMAND": "PS1='$ '",
        "TZ": "UTC",
        "PATH": os.environ["PATH"],
        "MAKEFLAGS": "--no-print-directory",
    }
    shell = ["env", "-C", str(folder), "bash", "--norc", "-i"]
    with (
        terminal(folder, WIDTH, UPPER, [str(folder / ".run/heliosd"), "watch"], env) as upper,
        terminal(folder, WIDTH, LOWER, shell, env) as lower,
    ):
        upper.wait("node-2 leads", "3 members")
        lower.wait("$")
        recorder = Recorder(upper, lower)
        recorder.start()
        try:
            time.sleep(1.5)  # the viewer reads
            type_in(lower, "make break PEER=node-2")
            upper.wait("7001 unhealthy")
            time.sleep(3.0)
            type_in(lower, "make heal")
            upper.wait("7001 healthy")
            time.sleep(2.5)
            lower.press("C-l")
            type_in(lower, ".run/heliosd history --since 20s --types state_changes")
            lower.wait(" led")
            time.sleep(1.5)
        finally:
            recorder.ended.set()
            recorder.join()
        return recorder.frames


def type_in(shell: Terminal, text: str) -> None:
    """As a person types."""
    for letter in text:
        shell.command("send-keys", "-l", "-t", "one", letter)
        time.sleep(0.03)
    shell.press("Enter")


def photograph(url: str, password: str, path: Path) -> None:
    """The dashboard as it looks after all that."""
    with browser_running() as browser:
        tab = Tab(
            browser, viewport={"width": 1280, "height": 900}, device_scale_factor=1.5, color_scheme="light"
        )
        tab.page.goto(f"{url}/")
        tab.page.fill("#login-username", "admin")
        tab.page.fill("#login-password", password)
        tab.page.click("#login-submit")
        expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
        tab.page.wait_for_timeout(11_000)  # two rounds of status and latency fill the lines
        tab.page.mouse.click(1, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        tab.page.screenshot(path=path)
        tab.page.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hp-") as place:
        folder = copy_of_the_repository(Path(place) / "heliosd")
        with started(folder) as url:
            heliosd = folder / ".run/heliosd"
            for name, kind, value in METRICS:
                subprocess.run(
                    [heliosd, "metrics", "register", name, kind], check=True, stdout=subprocess.DEVNULL
                )
                verb = "inc" if kind == "counter" else "set"
                subprocess.run([heliosd, "metrics", verb, name, value], check=True, stdout=subprocess.DEVNULL)
            shown = subprocess.run(
                [heliosd, "members", "-o", "tsv"], check=True, capture_output=True, text=True
            )
            if "node-2\t" in shown.stdout:
                subprocess.run([heliosd, "transfer", "node-2"], check=False, capture_output=True)
            frames = record(folder)
            IMAGES.mkdir(exist_ok=True)
            height = UPPER + 1 + LOWER
            (IMAGES / "watch.svg").write_text(film(frames, WIDTH, height, TITLE), encoding="utf-8")
            photograph(url, (folder / ".run/password").read_text().strip(), IMAGES / "dashboard.png")


if __name__ == "__main__":
    main()
