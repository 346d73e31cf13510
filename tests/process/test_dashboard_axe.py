"""The dashboard for those who do not see it, or use no mouse: axe-core's rules, and where the focus goes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser_page import Tab, browser_running, log_in
from tests.support.daemon_process import Daemon, running

AXE = Path(__file__).parents[2] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.slow,
    pytest.mark.skipif(not AXE.exists(), reason="make prove-dashboard fetches axe-core"),
]

METRICS = "/api/cluster/custom-metrics"
RUN = "async () => (await axe.run(document, { resultTypes: ['violations'] })).violations"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("axe")) as started, started.client() as http:
        for kind in ("gauge", "counter", "histogram"):
            for number in range(5):
                body = {"name": f"{kind}_{number}", "type": kind, "help": "help", "labels": {"env": "prod"}}
                assert http.post(METRICS, json=body).status_code == 201
        for member in ("node-1", "node-2"):
            assert http.post("/api/cluster/leadership/transfer", json={"target": member}).status_code == 200
        assert http.put("/api/cluster/simulation", json={"crashed": ["node-3"]}).status_code == 200
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_running() as started:
        yield started


def violations(tab: Tab) -> list[str]:
    """What axe finds that is serious or worse, each with the elements."""
    tab.page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = tab.page.evaluate(RUN)
    return [
        f"{rule['id']}: {[(node['html'][:160], node['failureSummary'][:300]) for node in rule['nodes'][:4]]}"
        for rule in found
        if rule["impact"] in {"serious", "critical"}
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_axe_finds_nothing_serious(browser: Browser, daemon: Daemon, scheme: str, width: int) -> None:
    tab = Tab(browser, color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce")
    tab.page.goto(f"{daemon.url}/")
    assert violations(tab) == [], "the login"
    log_in(tab, daemon)
    expect(tab.page.locator("#latency-panel")).to_be_visible()
    expect(tab.page.locator("#acts-panel")).to_be_visible()
    expect(tab.page.locator("#fall-detail")).not_to_be_empty()
    for opened in ("#reigns-panel details", "#clients-list"):
        tab.page.locator(opened).locator("summary").click()
    expect(tab.page.locator("#clients tbody tr").first).to_be_visible()
    assert violations(tab) == [], "the dashboard"
    tab.page.click("#scrub-back")
    expect(tab.page.locator("#past")).to_be_visible()
    assert violations(tab) == [], "the past"
    tab.page.click('[data-act="faults"]')
    expect(tab.page.locator("#act-dialog")).to_be_visible()
    assert violations(tab) == [], "a dialog"
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    tab.page.close()


def test_after_the_login_the_focus_stands_at_the_beginning_and_tables_and_log_have_names(
    browser: Browser, daemon: Daemon
) -> None:
    tab = Tab(browser)
    log_in(tab, daemon)
    expect(tab.page.locator("#headline")).to_be_focused()
    for name in ("Members", "Latencies", "Custom metrics"):
        expect(tab.page.get_by_role("table", name=name)).to_be_visible()
    expect(tab.page.get_by_role("log", name="Events")).to_be_visible()
    expect(tab.page.locator("#latency-trend")).to_contain_text("node-")
    picture = tab.page.locator("#picture")
    expect(picture).to_have_attribute(
        "aria-label", re.compile("^node-2 leads of 3 members. node-1: follower. node-3: silent since ")
    )
    tab.page.close()
