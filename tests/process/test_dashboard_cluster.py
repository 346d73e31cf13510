"""What the dashboard shows of a cluster and of its past, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, WebSocketRoute, expect

from tests.support.browser_page import Tab, browser_running, log_in
from tests.support.daemon_process import Daemon, running, wait_until

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]

METRICS = "/api/cluster/custom-metrics"
SIMULATION = "/api/cluster/simulation"
PEERS = "/api/cluster/peers"
FAST = "status_interval = 0.3\nlatency_interval = 0.3"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("cluster"), websocket=FAST) as started:
        yield started


@pytest.fixture(scope="module")
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_running() as started:
        yield started


@pytest.fixture
def tab(browser: Browser, daemon: Daemon) -> Iterator[Tab]:
    opened = Tab(browser, viewport={"width": 1280, "height": 900}, reduced_motion="no-preference")
    elsewhere: list[str] = []
    opened.page.on("request", lambda request: elsewhere.append(request.url))
    log_in(opened, daemon)
    expect(opened.page.locator("#connection")).to_have_attribute("data-state", "live")
    expect(opened.page.locator("#acts-panel")).to_be_visible()
    yield opened
    opened.page.close()
    assert [url for url in elsewhere if not url.startswith(f"{daemon.url}/")] == []
    assert opened.complaints == []


def lead(http: httpx.Client, member: str) -> None:
    answer = http.post("/api/cluster/leadership/transfer", json={"target": member})
    assert answer.status_code == 200, answer.text


def write_metrics(http: httpx.Client, count: int) -> None:
    for value in range(count):
        assert http.put(METRICS, json={"name": "written", "value": value}).status_code == 200


def test_the_picture_shows_who_leads_who_lags_and_who_is_silent_since_when(
    tab: Tab, http: httpx.Client
) -> None:
    lead(http, "node-1")
    node = tab.page.locator
    expect(tab.page.locator("#leader")).to_have_text("node-1")
    expect(tab.page.locator("#leader-detail")).to_have_text(
        re.compile(r"^leads for .+, since \d\d:\d\d:\d\d$")
    )
    expect(node('#picture [data-node="node-1"].leads')).to_be_visible()
    expect(node("#picture .link")).to_have_count(2)
    stopped = node('#members tr[data-member="node-3"] [data-field="stopped"]')
    expect(stopped).to_have_text("Writes go on")
    expect(stopped).to_have_attribute(
        "title",
        "Without node-3 writes go on: 2 of 3 voters answer, 2 are needed. Another loss meanwhile stops them.",
    )
    assert http.post(METRICS, json={"name": "written", "type": "gauge"}).status_code == 201
    assert http.put(SIMULATION, json={"crashed": ["node-2"]}).status_code == 200
    write_metrics(http, 20)
    silent = node('#picture [data-node="node-2"]')
    expect(silent).to_contain_text(re.compile(r"silent since \d\d:\d\d:\d\d"))
    row = node('#members tr[data-member="node-2"]')
    expect(row.locator('[data-field="lag"]')).to_have_text(re.compile("^2\\d$"))
    expect(row.locator('[data-field="lag-time"]')).to_have_text(re.compile(r"^[\d.]+ s$"))
    expect(row.locator('[data-field="since"]')).to_have_text(re.compile(r"^since \d\d:\d\d:\d\d$"))
    expect(stopped).to_have_text("Writes stop")
    expect(node("#cluster-health-word")).to_have_text("Degraded")
    expect(row.locator('[data-field="stopped"]')).to_have_text("Silent already, writes go on")
    expect(node("#faults-text")).to_have_text("Simulated faults: crashed: node-2.")
    assert http.put(SIMULATION, json={"crashed": []}).status_code == 200
    expect(node("#cluster-health-word")).to_have_text("Healthy")
    expect(row.locator('[data-field="lag"]')).to_have_text("0")
    expect(node("#faults")).to_be_hidden()
    assert http.delete(METRICS, params={"name": "written"}).status_code == 200


def test_why_the_last_leader_fell_and_how_long_there_was_none(tab: Tab, http: httpx.Client) -> None:
    lead(http, "node-2")
    assert http.put(SIMULATION, json={"crashed": ["node-2"]}).status_code == 200
    expect(tab.page.locator("#fall")).to_have_text("node-2")
    expect(tab.page.locator("#fall-detail")).to_have_text(
        re.compile(
            r"^\d\d:\d\d:\d\d fell: it stopped answering; "
            r"[\d.]+ m?s without a leader after [\d.]+ m?s of silence\.$"
        )
    )
    expect(tab.page.locator("#fall-detail")).to_have_attribute(
        "title", re.compile(r"^\w{3}, \d+ \w{3,4} \d{4}, \d\d:\d\d:\d\d\.\d{3} UTC")
    )
    assert http.put(SIMULATION, json={"crashed": []}).status_code == 200
    leads = http.get("/api/cluster/status").json()["leader"]["id"]
    lead(http, "node-3" if leads == "node-1" else "node-1")
    expect(tab.page.locator("#fall-detail")).to_contain_text("Since then one planned change.")
    expect(tab.page.locator("#absence")).to_have_text(
        re.compile(r"^(up to )?[\d.]+ m?s.* since .*\d\d:\d\d$")
    )
    expect(tab.page.locator("#absence-detail")).to_have_text(
        re.compile(
            r"^(\d+ \w+ )?\d\d:\d\d to (now|06:00).*\. Nothing is known of (last night|the time before)\."
        )
    )


def test_while_its_own_member_is_down_nothing_is_claimed_of_the_others(tab: Tab, http: httpx.Client) -> None:
    lead(http, "node-2")
    field = tab.page.locator
    expect(field("#leader")).to_have_text("node-2")
    expect(field("#leader-detail")).to_contain_text("leads for")  # the changes so far have been read
    expect(field("#fall-detail")).not_to_be_empty()
    before = {name: field(name).inner_text() for name in ("#fall", "#fall-detail", "#absence")}
    assert http.put(SIMULATION, json={"crashed": ["node-1"]}).status_code == 200
    expect(field("#leader")).to_have_text("not known")
    expect(field("#cluster-health-word")).to_have_text("Not known")
    expect(field("#one-more-loss")).to_be_hidden()
    other = field('#members tr[data-member="node-3"]')
    expect(other.locator('[data-field="stopped"]')).to_have_text("Not known")
    expect(other.locator('[data-field="health-word"]')).to_have_text(
        "Not known"
    )  # its last answer is old by then
    expect(field("#events li").first).to_contain_text("Follower → Down, what the others do is not seen")
    assert http.put(SIMULATION, json={"crashed": []}).status_code == 200
    expect(field("#leader")).to_have_text("node-2")
    expect(field("#cluster-health-word")).to_have_text("Healthy")
    for name, words in before.items():
        expect(field(name)).to_have_text(words)
    # It is still in the term of before, so it has led all the time.
    expect(field("#leader-detail")).to_have_text(re.compile(r"^leads for [\d.]+ \w+, since \d\d:\d\d:\d\d$"))


def test_whose_leader_was_elected_while_nobody_watched_has_led_at_least_since_it_was_seen(
    tab: Tab, http: httpx.Client
) -> None:
    lead(http, "node-1")
    field = tab.page.locator
    expect(field("#leader")).to_have_text("node-1")
    assert http.put(SIMULATION, json={"crashed": ["node-1"]}).status_code == 200
    other = field('#members tr[data-member="node-3"]')
    expect(other.locator('[data-field="state"]')).to_have_text("Not known")
    expect(other.locator('[data-field="lag"]')).to_have_text("–")
    expect(field('#picture [data-node="node-3"]')).to_contain_text("not known")
    assert http.put(SIMULATION, json={"crashed": []}).status_code == 200
    expect(field("#leader-detail")).to_have_text(
        re.compile(r"^leads for at least [\d.]+ \w+, since \d\d:\d\d:\d\d or before$")
    )
    expect(field("#reigns-summary")).to_contain_text("has led for at least")


def test_the_time_line_goes_back_and_the_picture_with_it(
    tab: Tab, http: httpx.Client, browser: Browser, daemon: Daemon
) -> None:
    lead(http, "node-3")
    lead(http, "node-1")
    leader, past = tab.page.locator("#leader"), tab.page.locator("#past")
    expect(leader).to_have_text("node-1")
    expect(tab.page.locator("#reigns-summary")).to_contain_text("node-1 has led for")
    tab.page.click("#scrub-back")
    expect(past).to_be_visible()
    while leader.inner_text() != "node-3":
        tab.page.click("#scrub-back")
    expect(tab.page.locator('#picture [data-node="node-3"].leads')).to_be_visible()
    expect(tab.page.locator('#members tr[data-member="node-3"] [data-field="state"]')).to_have_text("Leader")
    expect(tab.page.locator('#members tr[data-member="node-3"] [data-field="lag"]')).to_have_text("–")
    expect(tab.page.locator("#scrub-text")).to_contain_text("node-3 led")
    tab.page.wait_for_timeout(1500)  # the address follows when the moment has stood still
    link = tab.page.url
    assert "#at=" in link
    tab.page.click("#past-end")
    expect(leader).to_have_text("node-1")
    expect(past).to_be_hidden()
    other = Tab(browser)
    log_in(other, daemon)
    expect(other.page.locator("#reigns-summary")).to_contain_text("node-1 has led for")
    other.page.evaluate("hash => { location.hash = hash }", link.partition("#")[2])
    expect(other.page.locator("#leader")).to_have_text("node-3")
    other.page.locator("#members-panel").focus()
    other.page.keyboard.press("n")
    expect(other.page.locator("#leader")).to_have_text("node-1")
    other.page.locator("#scrub").focus()
    other.page.keyboard.press("Home")
    expect(other.page.locator("#past")).to_be_visible()
    other.page.close()


def test_reigns_are_shown_for_a_day_and_a_week(tab: Tab) -> None:
    for seconds, length in (("86400", "1 d 0 h"), ("604800", "7 d 0 h")):
        tab.page.select_option("#reigns-period", seconds)
        expect(tab.page.locator("#reigns-summary")).to_contain_text(f"in {length}")
        expect(tab.page.locator("#reigns-summary")).to_contain_text("as far as is known: since")


def test_the_last_200_events_are_there_and_pages_lead_back(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    for number in range(105):
        body = {"id": f"guest-{number}", "address": f"127.0.0.1:{7100 + number}"}
        assert http.post(PEERS, json=body).status_code == 201
        assert http.delete(PEERS, params={"id": body["id"]}).status_code == 200
    tab = Tab(browser)
    log_in(tab, daemon)
    lines = tab.page.locator("#events li")
    expect(lines).to_have_count(200)
    expect(lines.first).to_contain_text("guest-104 removed")
    expect(lines.filter(has_text="guest-1 added")).to_have_count(0)
    tab.page.click("#events-earlier")
    expect(lines.filter(has_text="guest-1 added")).to_have_count(1)
    while tab.page.locator("#events-earlier").is_visible():
        tab.page.click("#events-earlier")
    # A loss and its election are one line, with the number of the second.
    first = http.get("/api/cluster/history", params={"limit": 1}).json()["events"][0]
    is_loss = first["type"] == "state_change" and not first["data"]["leader"]
    assert lines.last.get_attribute("data-seq") == ("2" if is_loss else "1")
    seq = lines.nth(30).get_attribute("data-seq")
    tab.page.evaluate("hash => { location.hash = hash }", f"event-{seq}")
    expect(tab.page.locator(f'#events li[data-seq="{seq}"]')).to_be_in_viewport()
    assert tab.complaints == []
    tab.page.close()


def test_latencies_are_a_matrix_and_lines_from_zero_with_a_scale(tab: Tab) -> None:
    measured = re.compile(r"^\d+\.\d$")
    for number, member in enumerate(("node-1", "node-2", "node-3")):
        cells = tab.page.locator(f'#latency tr[data-from="{member}"] td')
        expect(cells).to_have_text([measured if at != number else "·" for at in range(3)])
    tab.page.locator("#latency-panel summary").click()
    for peer in ("node-2", "node-3"):
        expect(tab.page.locator(f'#calls tr[data-to="{peer}"] td').nth(-2)).to_have_text(measured)
    expect(tab.page.locator("#latency-lines text").first).to_have_text("0.0")
    expect(tab.page.locator("#latency-lines .line").first).to_have_attribute("d", re.compile("L"))
    expect(tab.page.locator("#latency-trend")).to_have_text(
        re.compile(r"^node-2 (rising|falling|steady), node-3 (rising|falling|steady)$")
    )


def test_custom_metrics_have_rates_quantiles_labels_a_natural_order_and_more_beyond_200(
    tab: Tab, http: httpx.Client
) -> None:
    for number in range(205):
        labels = {"shard": str(number)}
        body = {"name": f"m_{number}", "type": "gauge", "labels": labels}
        assert http.post(METRICS, json=body).status_code == 201
    assert http.post(METRICS, json={"name": "a_total", "type": "counter"}).status_code == 201
    buckets = {"name": "a_seconds", "type": "histogram", "buckets": [1, 2, 4]}
    assert http.post(METRICS, json=buckets).status_code == 201
    for value in (0.5, 1.5, 1.5, 3):
        assert http.put(METRICS, json={"name": "a_seconds", "value": value}).status_code == 200
    extra = tab.page.locator('#metrics tr[data-metric="a_seconds"] [data-field="extra"]')
    expect(extra).to_have_text("p50 1.5 · p90 3.2 · p99 3.92 · mean 1.625")
    rate = tab.page.locator('#metrics tr[data-metric="a_total"] [data-field="extra"]')
    for _ in range(3):
        assert http.put(METRICS, json={"name": "a_total", "delta": 10}).status_code == 200
        tab.page.wait_for_timeout(1100)  # a rate needs time to pass
    expect(rate).to_have_text(re.compile(r"^[\d.]+/s$"))
    names = tab.page.locator("#metrics tbody tr")
    expect(names).to_have_count(200)
    shown = [str(row.get_attribute("data-metric")) for row in names.all()[:6]]
    assert shown == ["a_seconds", "a_total", "m_0", "m_1", "m_2", "m_3"]
    expect(names.nth(12)).to_contain_text("shard=10")
    expect(tab.page.locator("#metrics-count")).to_have_text("200 of 207")
    tab.page.get_by_role("button", name="Show 7 more of 7").click()
    expect(names).to_have_count(207)
    # Rows out of view are not laid out, however many change.
    in_view = "(row) => row.firstElementChild.checkVisibility({ contentVisibilityAuto: true })"
    names.first.scroll_into_view_if_needed()
    wait_until(lambda: names.first.evaluate(in_view) and not names.last.evaluate(in_view))
    tab.page.fill("#metrics-filter", "shard=77")
    expect(names).to_have_count(1)
    assert http.post(f"{METRICS}/reset").status_code == 200


def test_the_picture_is_parted_by_a_line_and_healed(tab: Tab, http: httpx.Client) -> None:
    lead(http, "node-1")
    expect(tab.page.locator('#picture [data-node="node-1"].leads')).to_be_visible()
    tab.page.click("#partition")
    tab.page.locator("#picture").scroll_into_view_if_needed()
    box = tab.page.locator("#picture").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] * 0.4
    tab.page.mouse.move(middle, box["y"] + 5)
    tab.page.mouse.down()
    tab.page.mouse.move(middle, box["y"] + box["height"] - 10, steps=4)
    tab.page.mouse.up()
    expect(tab.page.locator("#act-says")).to_contain_text("node-1 | node-2, node-3.")
    tab.page.click("#act-confirm")
    expect(tab.page.locator("#faults-text")).to_have_text(
        "Simulated faults: parted: node-1 | node-2, node-3."
    )
    expect(tab.page.locator("#cluster-health-word")).to_have_text(re.compile("No leader|Stale|No quorum"))
    tab.page.click("#heal")
    expect(tab.page.locator("#act-confirm")).to_be_focused()
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#faults")).to_be_hidden()
    expect(tab.page.locator("#cluster-health-word")).to_have_text("Healthy")
    assert http.get(SIMULATION).json()["partitions"] == []


def test_what_etcd_says_of_its_members_and_what_is_provisional_are_shown(
    browser: Browser, daemon: Daemon
) -> None:
    tab = Tab(browser)
    sockets: list[WebSocketRoute] = []

    def between(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if json.loads(message)["type"] != "status_update":  # it would replace what is sent below
                socket.send(message)

        server.on_message(pass_on)
        sockets.append(socket)

    tab.page.route_web_socket("**/ws/cluster*", between)
    log_in(tab, daemon)
    expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
    latency = {"reachable": True, "connection_healthy": True, "sample_count": 0, "consecutive_errors": 0}
    etcd = {"version": "3.6.1", "db_size_bytes": 2**20, "db_quota_bytes": 2**22, "alarms": ["NOSPACE"]}
    peer = {"id": "8e9e05c52164694d", "name": "m2", "address": "127.0.0.1:2379", "latency": latency, **etcd}
    now = datetime.now(UTC).isoformat()
    status: dict[str, Any] = {
        "node_id": "node-1",
        "state": "Observer",
        "term": 7,
        "node": {"id": "node-1", "state": "Observer", "term": 7},
        "commit_index": 500,
        "last_applied": 500,
        "leader": peer["id"],
        "peer_details": [{**peer, "state": "Leader", "voter": True, "applied_index": 480}],
        "observed_by": "node-1",
        "observed_at": now,
    }
    sockets[0].send(json.dumps({"type": "status_update", "timestamp": now, "data": status}))
    row = tab.page.locator('#members tr[data-member="8e9e05c52164694d"]')
    expect(row).to_contain_text("etcd 3.6.1, database 1.0 MiB of 4.0 MiB (25\u00a0%)")
    expect(row).to_contain_text("NOSPACE")
    expect(tab.page.locator("#cluster-health-word")).to_have_text("Alarm")
    expect(tab.page.locator("#cluster-health-detail")).to_contain_text("m2: NOSPACE")
    expect(tab.page.locator("#leader")).to_have_text("m2")
    lost = {"old_state": "Leader", "new_state": "Unknown", "term": 7, "leader": "", "member": peer["id"]}
    message = {"type": "state_change", "timestamp": now, "data": lost}
    gone = {**status, "leader": "", "warnings": ["no writes"]}
    with daemon.client() as http:
        seq = http.get("/api/cluster/history", params={"limit": 1}).json()["seq"]
    won = {**lost, "old_state": "Follower", "new_state": "Leader", "leader": peer["id"]}
    sockets[0].send(json.dumps({**message, "data": won, "seq": seq + 1}))
    sockets[0].send(json.dumps({**message, "provisional": True}))
    sockets[0].send(json.dumps({"type": "status_update", "timestamp": gone["observed_at"], "data": gone}))
    lines = tab.page.locator('#events li[data-type="state_change"]').filter(
        has_text="m2 lost; no leader term 7"
    )
    expect(lines).to_have_text(re.compile("provisional$"))
    # The time without a leader counts before the log has its beginning, and once it has it the line stands once.
    expect(tab.page.locator("#leader-detail")).to_contain_text("no leader for")
    expect(tab.page.locator("#reigns tbody tr").first).to_contain_text("no leader")
    expect(tab.page.locator("#fall")).to_have_text("m2")
    sockets[0].send(json.dumps({**message, "seq": seq + 2}))
    expect(lines).not_to_contain_text("provisional")
    expect(lines).to_have_count(1)
    peer["alarms"] = []
    well = {**status, "warnings": ["no writes"], "peer_details": [{**peer, "state": "Leader", "voter": True}]}
    sockets[0].send(json.dumps({"type": "status_update", "timestamp": now, "data": well}))
    expect(tab.page.locator("#cluster-health-word")).to_have_text("Warning")
    row.locator(".copy").first.click()
    expect(row.locator(".copy").first).to_have_attribute("data-copied", "yes")
    tab.page.close()
