"""The dashboard without its daemon, its notifications, permits and clients, in a real browser."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, WebSocketRoute, expect

from tests.support.browser_page import Tab, browser_running, log_in
from tests.support.daemon_process import Daemon, running, wait_until, write_config
from tests.support.ports import free_port

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]

SIMULATION = "/api/cluster/simulation"
PEERS = "/api/cluster/peers"
PERMITS = "/api/cluster/permits"

RECORD_NOTIFICATIONS = """
window.notified = [];
window.Notification = class { constructor(title, { body }) { window.notified.push(title); } };
window.Notification.permission = "default";
window.Notification.requestPermission = async () => (window.Notification.permission = "granted");
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_running() as started:
        yield started


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("away")) as started:
        yield started


@pytest.fixture(scope="module")
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


def opened(browser: Browser, daemon: Daemon, script: str = "") -> Tab:
    tab = Tab(browser)
    tab.page.add_init_script(script or "0")
    log_in(tab, daemon)
    expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
    expect(tab.page.locator("#acts-panel")).to_be_visible()
    return tab


def test_a_daemon_that_hangs_is_not_shown_as_live(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        tab = opened(browser, daemon)
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            expect(tab.page.locator("#connection")).to_have_attribute("data-state", "late", timeout=30_000)
            expect(tab.page.locator("#connection-text")).to_have_text("No answer")
            expect(tab.page.locator("#dashboard")).to_have_attribute("data-fresh", "no")
            expect(tab.page.locator("#last-known")).to_be_visible()
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
        expect(tab.page.locator("#dashboard")).to_have_attribute("data-fresh", "yes")
        tab.page.close()


def test_cut_off_it_shows_the_last_known_greyed_with_the_reason_and_a_countdown(
    browser: Browser, tmp_path: Path
) -> None:
    with running(tmp_path) as daemon:
        tab = opened(browser, daemon)
        expect(tab.page.locator("#last-known")).to_be_hidden()
        assert daemon.stop() == 0
        expect(tab.page.locator("#last-known")).to_have_text(
            re.compile(r"^Last known, \d\d:\d\d:\d\d \(.+\)$")
        )
        expect(tab.page.locator("#connection-reason")).to_contain_text("Below is how things stood")
        expect(tab.page.locator("#heard")).to_have_text(re.compile(r"^in \d+ s$"))
        expect(tab.page.locator("#headline")).to_have_css("filter", "grayscale(1)")
        expect(tab.page.locator("#leader")).to_have_text(re.compile("node-[123]"))
        tab.page.close()


def test_events_of_a_new_numbering_are_never_listed_before_those_of_the_old_one(
    browser: Browser, tmp_path: Path
) -> None:
    config = write_config(tmp_path, listen=f"127.0.0.1:{free_port()}", cluster="[history]\nmax_events = 10")
    with running(tmp_path, config) as daemon:
        come_and_go(daemon, "old", 20)
        tab = opened(browser, daemon)
        lines = tab.page.locator("#events li")
        expect(lines.filter(has_text="old-19 removed")).to_have_count(1)
        old_lines = [line.get_attribute("data-seq") for line in lines.all()]
        assert daemon.stop() == 0
    (
        tmp_path / "state" / "events.epoch"
    ).unlink()  # as when its disk was full: it cannot go on with that numbering
    with running(tmp_path, config) as daemon:
        expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
        expect(lines.filter(has_text="The daemon began a new order of events")).to_have_count(1)
        come_and_go(daemon, "new", 2)
        expect(lines.filter(has_text="new-1 removed")).to_have_count(1)
        # There are such with lower numbers than the old ones that are listed, and the page has heard them.
        expect(tab.page.locator("#events-earlier")).to_be_hidden()
        tab.page.evaluate("document.getElementById('events-earlier').click()")
        come_and_go(daemon, "last", 1)
        expect(lines.filter(has_text="last-0 removed")).to_have_count(1)
        expect(lines.filter(has_text="new-1 removed")).to_have_count(1)
        assert [line.get_attribute("data-seq") for line in lines.all()][-len(old_lines) :] == old_lines
        tab.page.close()


def come_and_go(daemon: Daemon, name: str, times: int) -> None:
    with daemon.client() as http:
        for number in range(times):
            body = {"id": f"{name}-{number}", "address": f"127.0.0.1:{7100 + number}"}
            http.post(PEERS, json=body).raise_for_status()
            http.delete(PEERS, params={"id": body["id"]}).raise_for_status()


def test_a_permit_to_stop_a_member_is_asked_for_refused_and_given_back(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    tab = opened(browser, daemon)
    report = tab.page.locator("#act-report")
    tab.page.click('[data-act="may-stop"]')
    tab.page.select_option("#act-field-member", "node-3")
    tab.page.click("#act-confirm")
    expect(report).to_have_text(
        re.compile(r"^May a member stop\?: Permit granted, node-3 may be stopped until [\d: \w]+\.$")
    )
    assert http.get(PERMITS).json()["permits"][0]["member"] == "node-3"
    tab.page.click('[data-act="may-stop"]')
    tab.page.select_option("#act-field-member", "node-2")
    tab.page.click("#act-confirm")
    expect(tab.page.locator("#act-error")).to_contain_text("admin has the permit to stop node-3")
    tab.page.click("#act-cancel")
    tab.page.click('[data-act="end-permit"]')
    tab.page.click("#act-confirm")
    expect(report).to_have_text("Give a permit back: Permit ended.")
    assert http.get(PERMITS).json()["permits"] == []
    tab.page.click('[data-act="end-permit"]')
    expect(tab.page.locator("#act-error")).to_have_text("There is no permit to choose.")
    expect(tab.page.locator("#act-confirm")).to_be_disabled()
    tab.page.close()
    assert tab.complaints_but("409") == []


def test_clients_are_seen_and_cut(browser: Browser, daemon: Daemon) -> None:
    tab, other = opened(browser, daemon), Tab(browser)
    log_in(other, daemon, user="viewer")
    expect(other.page.locator("#connection")).to_have_attribute("data-state", "live")
    tab.page.locator("#clients-list summary").click()
    row = tab.page.locator("#clients tbody tr").filter(has_text="viewer")
    expect(row).to_have_count(1)
    row.get_by_role("button").click()
    expect(tab.page.locator("#act-says")).to_contain_text("viewer, 127.0.0.1:")
    tab.page.click("#act-confirm")
    expect(tab.page.locator("#act-report")).to_have_text(
        "Disconnect a client: Client disconnected successfully."
    )
    expect(other.page.locator("#connection")).to_have_attribute("data-state", "disconnected")
    expect(row).to_have_count(0)
    other.page.close()
    tab.page.close()
    assert tab.complaints == []


def test_a_person_who_allows_it_is_notified_of_a_lost_leader(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    tab = opened(browser, daemon, RECORD_NOTIFICATIONS)
    tab.page.click("#notify")
    expect(tab.page.locator("#notify")).to_have_attribute("aria-pressed", "true")
    assert http.post("/api/cluster/leadership/transfer", json={"target": "node-1"}).status_code == 200
    expect(tab.page.locator("#leader")).to_have_text("node-1")
    assert http.put(SIMULATION, json={"crashed": ["node-2", "node-3"]}).status_code == 200
    expect(tab.page.locator("#leader")).to_have_text("none")
    wait_until(lambda: "No leader" in tab.page.evaluate("window.notified"))
    assert http.put(SIMULATION, json={"crashed": []}).status_code == 200
    wait_until(lambda: tab.page.evaluate("window.notified").pop().endswith(" leads"))
    tab.page.click("#notify")
    expect(tab.page.locator("#notify")).to_have_attribute("aria-pressed", "false")
    tab.page.close()
    assert tab.complaints == []


def test_the_heliosd_of_an_etcd_cluster_lead_to_one_another(browser: Browser, daemon: Daemon) -> None:
    tab = Tab(browser)

    def between(socket: WebSocketRoute) -> None:
        def as_with_etcd(message: str | bytes) -> None:
            sent = json.loads(message)
            if sent["type"] in {"status", "status_update"}:
                sent["data"]["node"] = {"id": "node-1", "state": "Follower", "term": 1}
            socket.send(json.dumps(sent))

        socket.connect_to_server().on_message(as_with_etcd)

    since = {"version": "1.0.0", "since": "2026-11-28T03:00:00.000000Z"}
    observers = [
        {"id": "node-1", "url": daemon.url, **since},
        {"id": "node-2", "url": f"{daemon.url}/#reigns", **since},
        {"id": "node-3", **since},
        {"id": "node-4", "url": "javascript:window.hacked=1", **since},
    ]
    tab.page.route("**/api/cluster/status", lambda route: route.fulfill(json={"observers": observers}))
    tab.page.route_web_socket("**/ws/cluster*", between)
    log_in(tab, daemon)
    nodes = tab.page.locator("#nodes")
    expect(nodes).to_be_visible()
    expect(nodes.locator("option")).to_have_text(["node-1 (here)", "node-2", "node-3", "node-4"])
    expect(nodes.locator("option[disabled]")).to_have_text(["node-3", "node-4"])
    nodes.select_option(label="node-2")
    tab.page.wait_for_url(f"{daemon.url}/#reigns")
    tab.page.unroute_all(behavior="wait")
    tab.page.close()
    assert tab.complaints == []
