"""Clients that stay for many lives of a token without being restarted by hand: those of examples/, and a page of
Helios as docs/migration.md says. Twelve lives of 6 s stand for a day. A client that does not renew its token is
held for 25 s after its end, and closed with 4401.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Locator, expect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.browser_page import Tab, browser_running, fill_in_login
from tests.support.daemon_process import Daemon, running, wait_until, write_config
from tests.support.deadlines import SECONDS
from tests.support.example_programs import EXAMPLES, go_client, watching
from tests.support.node_packages import copy_of_javascript
from tests.support.ports import free_port

LIFE_SECONDS = 6.0
LIVES = 12
METRICS = "/api/cluster/custom-metrics"
NUMBERS = count()
"""Of metrics: no name comes twice."""

pytestmark = pytest.mark.slow


@dataclass
class OldPage:
    """As the page of Helios' examples: one token, in the URL; whenever it is cut it connects again with it. With
    `refreshes` it is changed as docs/migration.md says."""

    url: str
    token: str
    refreshes: bool
    names: set[str] = field(default_factory=set)
    """Of the metrics that it saw registered."""
    connections: int = 0
    ended: list[int | None] = field(default_factory=list)
    """The codes of the closes."""

    def run(self, over: threading.Event) -> None:
        socket_url = self.url.replace("http:", "ws:")
        while not over.is_set():
            try:
                with connect(
                    f"{socket_url}/ws/cluster?token={quote(self.token)}", ping_interval=None
                ) as socket:
                    self.connections += 1
                    while not over.is_set() and self._goes_on(json.loads(socket.recv())):
                        pass
            except ConnectionClosed as closed:
                self.ended.append(None if closed.rcvd is None else closed.rcvd.code)
            except (OSError, InvalidStatus):
                over.wait(0.2)

    def _goes_on(self, message: dict[str, object]) -> bool:
        """False: it is to connect with the token that it has now."""
        if message["type"] == "custom_metrics" and isinstance(message["data"], dict):
            self.names |= message["data"].keys()
        if message["type"] == "token_expiring" and self.refreshes:
            bearer = {"Authorization": f"Bearer {self.token}"}
            answer = httpx.post(f"{self.url}/api/auth/refresh", headers=bearer, timeout=SECONDS, verify=False)
            if answer.is_success:
                self.token = answer.json()["token"]
                return False
        return True


@contextmanager
def in_thread(page: OldPage) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=page.run, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * SECONDS)


def change_until(daemon: Daemon, seen: Callable[[str], bool]) -> None:
    """Register metrics, one after the other, until `seen` is true of the name of one: a page that does not resume
    misses those of the time between two connections."""

    def register() -> bool:
        name = f"seen_{next(NUMBERS)}"
        with daemon.client() as http:
            http.post(METRICS, json={"name": name, "type": "gauge"}).raise_for_status()
        try:
            wait_until(lambda: seen(name), 2)
        except AssertionError:
            return False
        return True

    wait_until(register, 2 * SECONDS)


def token_that_lasts(config: Path, state: Path) -> str:
    """As an operator makes it for a page on a wall."""
    command = [sys.executable, "-m", "heliosd", "token", "--config", str(config)]
    done = subprocess.run(
        [*command, "--user", "viewer", "--ttl", "365d"],
        env={"STATE_DIRECTORY": str(state), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_page_of_helios_stays_for_twelve_lives_of_a_token_and_a_restart(tmp_path: Path) -> None:
    config = write_config(
        tmp_path, listen=f"127.0.0.1:{free_port()}", auth=f'token_ttl = "{LIFE_SECONDS:g}s"'
    )
    with ExitStack() as until_ended:
        with running(tmp_path, config) as daemon:
            lasting = OldPage(daemon.url, token_that_lasts(config, tmp_path / "state"), refreshes=False)
            changed = OldPage(daemon.url, daemon.token("viewer"), refreshes=True)
            for page in (lasting, changed):
                until_ended.enter_context(in_thread(page))
            time.sleep(LIVES * LIFE_SECONDS)  # what is shown is that nothing ends in it
            change_until(daemon, lambda name: name in lasting.names & changed.names)
            assert (lasting.connections, lasting.ended) == (1, [])
            assert changed.connections >= LIVES / 2
            assert daemon.stop() == 0
        with running(tmp_path, config) as daemon:
            wait_until(lambda: lasting.connections == 2)
            change_until(daemon, lambda name: name in lasting.names)


@pytest.mark.needs("chromium", "go", "node")
def test_the_examples_and_the_dashboard_stay_for_twelve_lives_of_a_token(tmp_path: Path) -> None:
    programs: list[tuple[tuple[str | Path, ...], Path | None]] = [
        ((sys.executable, EXAMPLES / "python" / "watch.py"), None),
        ((go_client(tmp_path),), None),
        (("node", "watch.mjs"), copy_of_javascript(tmp_path / "javascript")),
    ]
    auth = f'token_ttl = "{LIFE_SECONDS:g}s"'
    with ExitStack() as until_ended:
        daemon = until_ended.enter_context(running(tmp_path, auth=auth))
        watchers = [
            until_ended.enter_context(watching(daemon, *command, cwd=folder)) for command, folder in programs
        ]
        tab = Tab(until_ended.enter_context(browser_running()))
        tab.page.goto(f"{daemon.url}/")
        fill_in_login(tab)
        expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
        for watcher in watchers:
            watcher.wait("node-1")
        time.sleep(LIVES * LIFE_SECONDS)  # what is shown is that nothing ends in it
        for watcher in watchers:
            change_until(daemon, lambda name: watcher.printed(name) is not None)  # noqa: B023
            assert watcher.process.poll() is None
        shown = tab.page.locator("#metrics tr[data-metric]")
        change_until(daemon, lambda name: any(name == each for each in names_in(shown)))
        expect(tab.page.locator("#login")).to_be_hidden()


def names_in(rows: Locator) -> list[str | None]:
    return [row.get_attribute("data-metric") for row in rows.all()]
