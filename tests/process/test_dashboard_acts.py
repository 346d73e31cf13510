"""What can be done to the cluster from the dashboard, its keys and its links, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser_page import Tab, browser_running, log_in
from tests.support.daemon_process import Daemon, running

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("acts")) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_running() as started:
        yield started


@pytest.fixture(scope="module")
def tab(browser: Browser, daemon: Daemon) -> Tab:
    opened = Tab(browser)
    log_in(opened, daemon)
    expect(opened.page.locator("#connection")).to_have_attribute("data-state", "live")
    return opened


@pytest.fixture
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


def confirm(tab: Tab, act: str, **values: str) -> None:
    tab.page.click(f'[data-act="{act}"]')
    expect(tab.page.locator("#act-dialog")).to_be_visible()
    for name, value in values.items():
        tab.page.fill(f"#act-field-{name}", value)
    tab.page.click("#act-confirm")


@pytest.mark.extended
def test_a_peer_is_added_and_removed_and_an_error_of_the_api_is_shown(tab: Tab, http: httpx.Client) -> None:
    report = tab.page.locator("#act-report")
    confirm(tab, "add-peer", id="node-7", address="nowhere")
    expect(tab.page.locator("#act-error")).to_contain_text("address")
    tab.page.fill("#act-field-address", "127.0.0.1:7006")
    tab.page.click("#act-confirm")
    expect(report).to_have_text("Add a peer: Peer added successfully.")
    expect(tab.page.locator('#members tr[data-member="node-7"]')).to_be_visible()
    tab.page.click('[data-act="remove-peer"]')
    tab.page.select_option("#act-field-id", "node-7")
    tab.page.click("#act-confirm")
    expect(report).to_have_text("Remove a peer: Peer removed successfully.")
    assert "node-7" not in http.get("/api/cluster/peers").text
    assert tab.complaints_but("400") == []


@pytest.mark.slow
def test_nothing_is_done_when_the_dialog_is_cancelled(tab: Tab, http: httpx.Client) -> None:
    tab.page.click('[data-act="add-peer"]')
    tab.page.fill("#act-field-id", "node-9")
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#act-dialog")).to_be_hidden()
    assert "node-9" not in http.get("/api/cluster/peers").text


@pytest.mark.slow
def test_a_metric_is_registered_set_and_deleted_and_a_snapshot_taken(tab: Tab) -> None:
    report = tab.page.locator("#act-report")
    value = tab.page.locator('#metrics tr[data-metric="by_hand"] [data-field="value"]')
    confirm(tab, "register-metric", name="by_hand")
    expect(value).to_have_text("0")
    confirm(tab, "set-metric", name="by_hand", number="4.5")
    expect(value).to_have_text("4.5")
    confirm(tab, "delete-metric", name="by_hand")
    expect(value).to_have_count(0)
    confirm(tab, "snapshot")
    expect(report).to_contain_text("Take a snapshot: ")


@pytest.mark.extended
def test_leadership_moves_and_a_fault_is_made_and_healed(tab: Tab, http: httpx.Client) -> None:
    tab.page.click('[data-act="transfer"]')
    target = tab.page.locator("#act-field-target").input_value()
    tab.page.click("#act-confirm")
    expect(tab.page.locator("#act-report")).to_have_text(f"Transfer leadership: {target} leads.")
    tab.page.click('[data-act="faults"]')
    tab.page.check('#act-fields input[name="crashed"][value="node-3"]')
    tab.page.click("#act-confirm")
    expect(tab.page.locator('#members tr[data-member="node-3"] [data-field="state"]')).to_have_text("Down")
    assert http.get("/api/cluster/simulation").json()["crashed"] == ["node-3"]
    tab.page.click('[data-act="faults"]')
    tab.page.uncheck('#act-fields input[name="crashed"][value="node-3"]')
    tab.page.click("#act-confirm")
    expect(tab.page.locator("#act-report")).to_have_text("Faults: done.")
    assert http.get("/api/cluster/simulation").json()["crashed"] == []


@pytest.mark.slow
def test_a_question_mark_shows_the_keys_and_they_lead_to_the_panels(tab: Tab, daemon: Daemon) -> None:
    tab.page.locator("#members-panel").focus()
    tab.page.keyboard.press("?")
    expect(tab.page.locator("#keys-dialog")).to_contain_text("go to the events")
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("e")
    expect(tab.page.locator("#events-panel")).to_be_focused()
    assert tab.page.url == f"{daemon.url}/#events"
    tab.page.keyboard.press("p")
    expect(tab.page.locator("#events-pause")).to_have_attribute("aria-pressed", "true")
    tab.page.keyboard.press("p")
    tab.page.evaluate("location.hash = '#members'")  # as a link does
    expect(tab.page.locator("#members-panel")).to_be_focused()
    tab.page.evaluate("location.hash = '#events'")
    expect(tab.page.locator("#events-panel")).to_be_focused()
    tab.page.reload()
    expect(tab.page.locator("#events-panel")).to_be_focused()


@pytest.mark.extended
def test_who_may_only_watch_is_offered_nothing_to_do(browser: Browser, daemon: Daemon) -> None:
    watcher = Tab(browser)
    with watcher.page.expect_response("**/api/auth/me"):
        log_in(watcher, daemon, user="viewer")
    # The panel is hidden from the start, the list inside of it not: what hides it has drawn the acts.
    expect(watcher.page.locator("#clients-list")).to_have_attribute("hidden", "")
    expect(watcher.page.locator("#acts-panel")).to_be_hidden()
    assert watcher.complaints == []
    watcher.page.close()
