"""A real browser, and the errors of a page in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from .daemon_process import PASSWORD, Daemon
from .deadlines import SECONDS

expect.set_options(timeout=SECONDS * 1000)

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


@contextmanager
def browser_running(*more: str) -> Iterator[Browser]:
    """Chromium as the machine has it, with these arguments too, for as long as the block lasts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*ARGUMENTS, *more]
        )
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page with cookies and storage of its own. `complaints` are its console errors, uncaught exceptions, and
    what its content security policy forbade. Without an option nothing in it moves: drawn without a graphics card,
    one mark that beats keeps a core a tenth busy."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.page: Page = browser.new_page(**{"reduced_motion": "reduce"} | options)
        self.page.set_default_timeout(SECONDS * 1000)
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('CSP: ' + e.violatedDirective))"
        )

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def complaints_but(self, *expected: str) -> list[str]:
        """The complaints that name none of the expected."""
        return [complaint for complaint in self.complaints if not any(part in complaint for part in expected)]


def log_in(tab: Tab, daemon: Daemon, password: str = PASSWORD, user: str = "admin") -> None:
    """Open the dashboard and log in."""
    tab.page.goto(f"{daemon.url}/")
    fill_in_login(tab, password, user)


def fill_in_login(tab: Tab, password: str = PASSWORD, user: str = "admin") -> None:
    """On the dashboard, which is open."""
    tab.page.fill("#login-username", user)
    tab.page.fill("#login-password", password)
    tab.page.click("#login-submit")
