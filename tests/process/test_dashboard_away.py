"""The dashboard without its daemon, its notifications, permits and clients, in a real browser."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Route, WebSocketRoute, expect

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


def test_how_old_the_last_known_is_does_not_depend_on_the_clock_of_the_daemon(scripts: Tab) -> None:
    ask = """async (ahead) => {
      const { Model } = await import("./static/model.js");
      const { showLastKnown } = await import("./static/headline_view.js");
      const [model, now] = [new Model(), Date.now()];
      const observed_at = new Date(now + ahead * 1000).toISOString();
      const clock = Date.now;
      Date.now = () => now;
      model.take({ type: "status", timestamp: observed_at, data: { observed_at, leader: "a", term: 1 } });
      Date.now = () => now + 65_000;
      showLastKnown(model, false);
      Date.now = clock;
      return document.getElementById("last-known").textContent.replace(/.*[(]/, "(");
    }"""
    assert {scripts.page.evaluate(ask, ahead) for ahead in (-600, 0, 600)} == {"(65 s ago)"}


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


HEARD = """
const { Model } = await import("./static/model.js");
const model = new Model();
const at = (seconds) => new Date(Date.UTC(2026, 10, 28, 3, 0, seconds)).toISOString();
const hear = (seconds, type, data, more = {}) => model.take({ type, timestamp: at(seconds), data, ...more });
const status = (seconds, leader, term, as_of_seq) =>
  hear(seconds, "status", { leader, term, as_of_seq, state: "Follower", observed_at: at(seconds) });
const lead = (seconds, seq, leader, term) => ({
  type: "state_change", timestamp: at(seconds), seq,
  data: { leader, term, member: "node-1", old_state: "Follower", new_state: "Follower" },
});
const welcome = (seconds, seq, more) =>
  hear(seconds, "welcome", { epoch: "e", seq, oldest_seq: 1, recovered: true, ...more });
welcome(0, 10);
model.take(lead(1, 11, "a", 5));
status(2, "a", 5, 11);
hear(10, "status_update", { leader: "a", term: 5, state: "Follower", observed_at: at(10) });
const reigns = () =>
  model.spans.map(({ leader, unseen, from, term }) => [unseen ? "?" : leader, new Date(from).getSeconds(), term]);
const { began } = await import("./static/reigns.js");
const texts = () => [...model.events, ...model.earlier].map(({ seq, data }) => seq ?? data);
"""
"""A page that hears of a leader, and last of it at second 10; the tests go on from there."""

AWAY = {
    "too_many": 'welcome(40, 20, { recovered: false, reason: "too_many" });',
    "too_old": 'welcome(40, 20, { recovered: false, reason: "too_old", oldest_seq: 15 });',
    "gap": 'hear(40, "gap", { from_seq: 12, to_seq: 20, dropped: 9, reason: "slow_consumer" });',
    "renumbered": 'welcome(40, 20, { recovered: false, reason: "epoch_changed", epoch: "f" });',
}


@pytest.fixture(scope="module")
def scripts(browser: Browser, daemon: Daemon) -> Iterator[Tab]:
    """A page with nobody signed in, in which the page's modules can be called."""
    tab = Tab(browser)
    tab.page.goto(f"{daemon.url}/")
    expect(tab.page.locator("#login")).to_be_visible()
    yield tab
    tab.page.close()


@pytest.mark.parametrize("away", AWAY.values(), ids=AWAY)
def test_a_leader_that_was_elected_again_while_events_were_missed_has_not_led_all_the_time(
    scripts: Tab, away: str
) -> None:
    ask = f"""async () => {{ {HEARD} {away} status(41, "a", 9, 20);
      return [reigns(), began(model.spans, model.spans.at(-1)).least]; }}"""
    assert scripts.page.evaluate(ask) == [[["a", 1, 5], ["?", 10, 5], ["a", 41, 9]], True]


def test_a_leader_of_the_same_term_has_led_while_events_were_missed_too(scripts: Tab) -> None:
    ask = f"""async () => {{ {HEARD} {AWAY["gap"]} status(41, "a", 5, 20);
      return began(model.spans, model.spans.at(-1)); }}"""
    began = scripts.page.evaluate(ask)
    assert began["least"] is False
    assert datetime.fromtimestamp(began["since"] / 1000).second == 1


def test_a_history_that_is_read_after_the_record_gives_the_same_reigns(scripts: Tab) -> None:
    ask = """async (recordFirst) => {
      const { ChangeLog } = await import("./static/change_log.js");
      const change = ([leader, term, second]) => ({ type: "state_change",
        timestamp: new Date(Date.UTC(2026, 10, 28, 3, 0, second)).toISOString(), data: { leader, term } });
      const record = [["a", 1, 1], ["", 1, 10], ["b", 2, 11], ["", 2, 20], ["c", 3, 21]].map(change);
      const history = [["", 2, 20], ["c", 3, 21], ["", 3, 30], ["a", 4, 31]].map(change);
      const log = new ChangeLog();
      if (recordFirst) log.rememberBefore(record);
      log.fill(history, null, true);
      if (!recordFirst) log.rememberBefore(record);
      return log.spans(new Map()).map(({ leader, from }) => [leader, new Date(from).getSeconds()]);
    }"""
    reigns = [["a", 1], ["", 10], ["b", 11], ["", 20], ["c", 21], ["", 30], ["a", 31]]
    assert [scripts.page.evaluate(ask, first) for first in (False, True)] == [reigns, reigns]


def test_rows_of_one_key_do_not_become_more_with_each_drawing(scripts: Tab) -> None:
    ask = """async () => {
      const { rows, make } = await import("./static/dom.js");
      const body = make("tbody");
      const draw = (keys) => rows(body, keys.map((key) => [key, key]), () => make("tr"), () => {});
      for (let time = 0; time < 10; time += 1) draw(["a", "a", "b"]);
      const doubled = body.children.length;
      draw(["b", "c"]);
      return [doubled, [...body.children].map((row) => row.getAttribute("data-key"))];
    }"""
    assert scripts.page.evaluate(ask) == [3, ["b", "c"]]


def test_missed_events_that_the_history_has_stand_where_they_happened(scripts: Tab) -> None:
    ask = f"""async () => {{ {HEARD} {AWAY["too_many"]} status(41, "a", 9, 20);
      model.take(lead(50, 21, "b", 10));
      const hole = model.holes.find(({{ place }}) => place === "between");
      const asked = [hole.after, hole.upTo];
      model.fill(hole, [lead(20, 12, "", 5), lead(25, 13, "a", 9)], 11, 1);
      return [asked, reigns(), texts()]; }}"""
    reigns = [["a", 1, 5], ["", 20, 5], ["a", 25, 9], ["b", 50, 10]]
    assert scripts.page.evaluate(ask) == [[11, 20], reigns, [21, 13, 12, 11]]


def test_what_even_the_history_does_not_have_stays_unseen_and_noted(scripts: Tab) -> None:
    ask = f"""async () => {{ {HEARD} {AWAY["too_old"]} status(41, "b", 9, 20);
      const hole = model.holes.find(({{ place }}) => place === "between");
      model.fill(hole, [lead(30, 16, "b", 9)], 14, 15);
      return [reigns(), texts()]; }}"""
    assert scripts.page.evaluate(ask) == [
        [["a", 1, 5], ["?", 10, 5], ["b", 30, 9]],
        [16, "Events #12 to #14 were not heard by this page.", 11],
    ]


def test_a_page_with_no_event_listed_asks_for_all_of_a_new_numbering(scripts: Tab) -> None:
    ask = """async () => {
      const model = new (await import("./static/model.js")).Model();
      const welcome = (epoch, seq, recovered) =>
        model.take({ type: "welcome", data: { epoch, seq, oldest_seq: 1, recovered } });
      welcome("own", 0, true);
      welcome("cluster", 20, false);
      return [model.holes.map(({ place, epoch, upTo }) => [place, epoch, upTo]), model.events.length];
    }"""
    assert scripts.page.evaluate(ask) == [[["before", "cluster", 20]], 0]


def test_a_page_that_was_open_while_the_daemon_was_down_shows_the_same_as_one_that_is_loaded_anew(
    browser: Browser, tmp_path: Path
) -> None:
    config = write_config(tmp_path, listen=f"127.0.0.1:{free_port()}")
    with running(tmp_path, config) as daemon:
        tab = opened(browser, daemon)
        leads, unseen = tab.page.locator("#leader-detail"), tab.page.locator("#reigns-strip rect.unseen")
        expect(leads).to_contain_text("leads for")
        expect(unseen).to_have_count(1)  # before its first start
        assert daemon.stop() == 0
    with running(tmp_path, config) as daemon:
        expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
        expect(leads).to_contain_text("leads for")
        expect(unseen).to_have_count(2)
        rows = "#reigns tbody tr > :nth-child(-n + 2)"
        kept_open = tab.page.locator(rows).all_text_contents()
        tab.page.reload()
        expect(unseen).to_have_count(2)
        expect(tab.page.locator(rows)).to_have_text(kept_open)
        tab.page.close()


def test_a_past_that_could_not_be_read_is_noted_and_read_when_it_can(
    browser: Browser, daemon: Daemon
) -> None:
    tab = Tab(browser)
    pages = itertools.count()

    def fail_second_page(route: Route) -> None:
        limit = "limit=1000" in route.request.url
        if limit and next(pages) > 0:
            route.fulfill(status=503, json={"error": "busy"})
        else:
            answer = route.fetch()
            route.fulfill(response=answer, json={**answer.json(), "more": limit})

    come_and_go(daemon, "past", 2)
    tab.page.route("**/api/cluster/history*", fail_second_page)
    log_in(tab, daemon)
    note = tab.page.locator('#events li[data-type="note"]')
    expect(note).to_contain_text("What happened before could not be read.")
    lines = tab.page.locator("#events li").filter(has_text="past-1 removed")
    expect(lines).to_have_count(0)
    tab.page.unroute_all(behavior="wait")
    tab.page.click("#events-earlier")
    expect(lines).to_have_count(1)
    expect(note).to_have_count(0)
    tab.page.close()


MANY = """
const { Model } = await import("./static/model.js");
const { showEvents } = await import("./static/events_view.js");
const model = new Model();
let seq = 10;
const hear = (type, count) => {
  const timestamp = "2026-11-28T03:00:00Z";
  for (const last = seq + count; seq < last; ) model.take({ type, timestamp, seq: ++seq, data: {} });
};
model.take({ type: "welcome", data: { epoch: "e", seq, oldest_seq: 1, recovered: true } });
hear("snapshot", 3);
hear("peer_change", 1998);
"""
"""More than a page keeps apart of what it heard."""


def test_what_was_heard_is_not_asked_for_again_however_much_it_is(scripts: Tab) -> None:
    ask = f"""async () => {{ {MANY}
      const [{{ upTo: first }}] = model.holes.splice(0);
      model.wantEarlier();
      return [first, model.holes[0].upTo, model.events.length + model.earlier.length, model.changes.length]; }}"""
    assert scripts.page.evaluate(ask) == [10, 10, 2001, 1998]


def test_a_paused_list_shows_each_event_once(scripts: Tab) -> None:
    ask = f"""async () => {{ {MANY}
      document.querySelector('[data-chip="peers"]').click();
      showEvents(model);
      document.getElementById("events-pause").click();
      hear("peer_change", 5);
      showEvents(model);
      return [...document.querySelectorAll("#events li")].map(({{ dataset }}) => Number(dataset.seq)); }}"""
    assert scripts.page.evaluate(ask) == [13, 12, 11]


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
