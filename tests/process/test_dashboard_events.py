"""The dashboard's events and past leaders in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.browser_page import Tab, browser_running, log_in
from tests.support.daemon_process import Daemon, running

pytestmark = pytest.mark.needs("chromium")

METRICS = "/api/cluster/custom-metrics"
SIMULATION = "/api/cluster/simulation"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("events")) as started:
        yield started


@pytest.fixture(scope="module")
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


@pytest.fixture(scope="module")
def tab(daemon: Daemon) -> Iterator[Tab]:
    with browser_running() as browser:
        opened = Tab(browser)
        log_in(opened, daemon)
        expect(opened.page.locator("#connection")).to_have_attribute("data-state", "live")
        yield opened
        assert opened.complaints == []


def lead(http: httpx.Client, member: str) -> None:
    answer = http.post("/api/cluster/leadership/transfer", json={"target": member})
    assert answer.status_code == 200, answer.text


@pytest.mark.extended
def test_a_planned_transfer_is_one_quiet_line_and_a_loss_one_with_length_and_cause(
    tab: Tab, http: httpx.Client
) -> None:
    lines = tab.page.locator("#events li")
    lead(http, "node-1")
    lead(http, "node-2")
    planned = lines.filter(has_text=re.compile(r"node-1 → node-2, planned, [\d.]+ m?s"))
    expect(planned).to_have_count(1)
    expect(planned).to_have_attribute("data-level", "unknown")
    assert http.put(SIMULATION, json={"crashed": ["node-2"]}).status_code == 200
    lost = lines.filter(
        has_text=re.compile(r"node-2 lost: it does not answer; node-[13] leads after [\d.]+ m?s")
    )
    expect(lost).to_have_count(1)
    expect(lost).to_have_attribute("data-level", "warn")
    expect(lines.filter(has_text="node-2 unhealthy: it does not answer")).to_have_count(1)
    expect(tab.page.locator("#one-more-loss")).to_have_text(
        "2 of 3 voters answer, not node-2: one more loss stops writes."
    )
    assert http.put(SIMULATION, json={"crashed": []}).status_code == 200


@pytest.mark.extended
def test_past_leaders_are_a_strip_and_a_table_with_lengths_and_causes(tab: Tab, http: httpx.Client) -> None:
    lead(http, "node-3")
    lead(http, "node-1")
    expect(tab.page.locator("#reigns-summary")).to_contain_text("node-1 has led for")
    expect(tab.page.locator("#reigns-strip rect.reign").first).to_be_attached()
    tab.page.click("#reigns-panel summary")
    reign = tab.page.locator('#reigns tbody tr[data-leader="node-3"]').first
    expect(reign).to_contain_text("planned")
    expect(tab.page.locator("#reigns tbody tr").first).to_contain_text("now")


@pytest.mark.extended
def test_metrics_never_bury_an_election(tab: Tab, http: httpx.Client) -> None:
    lead(http, "node-2")
    lead(http, "node-1")
    lines = tab.page.locator("#events li")
    for number in range(205):
        assert http.post(METRICS, json={"name": f"event_{number}", "type": "counter"}).status_code == 201
    expect(lines.first).to_contain_text("event_204")
    expect(tab.page.locator('#events li[data-type="custom_metrics"]')).to_have_count(50)
    expect(lines.filter(has_text="node-2 → node-1, planned").first).to_be_attached()
    shown = [int(str(line.get_attribute("data-seq"))) for line in lines.all()]
    assert shown == sorted(shown, reverse=True)
    assert http.post(f"{METRICS}/reset").status_code == 200


@pytest.mark.slow
def test_chips_choose_the_kinds_and_a_pause_counts_what_came(tab: Tab, http: httpx.Client) -> None:
    metrics = tab.page.locator('#events li[data-type="custom_metrics"]')
    assert http.post(METRICS, json={"name": "chosen", "type": "gauge"}).status_code == 201
    expect(metrics.filter(has_text="chosen")).to_have_count(1)
    tab.page.click('[data-chip="metrics"]')
    expect(metrics).to_have_count(0)
    tab.page.click('[data-chip="metrics"]')
    expect(metrics.filter(has_text="chosen")).to_have_count(1)
    pause = tab.page.locator("#events-pause")
    pause.click()
    for name in ("later_1", "later_2"):
        assert http.post(METRICS, json={"name": name, "type": "gauge"}).status_code == 201
    expect(pause).to_have_text("Resume (2 new)")
    expect(metrics.filter(has_text="later_")).to_have_count(0)
    pause.click()
    expect(metrics.filter(has_text="later_")).to_have_count(2)
    assert http.post(f"{METRICS}/reset").status_code == 200
