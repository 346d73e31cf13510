"""The dashboard in a real browser, from the login to the logout, and what else the daemon has for one."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Route, WebSocketRoute, expect

from tests.support.browser_page import Tab, browser_running, log_in
from tests.support.daemon_process import Daemon, running, wait_until

pytestmark = pytest.mark.needs("chromium")

METRICS = "/api/cluster/custom-metrics"
QUIET = "status_interval = 600.0\nlatency_interval = 600.0\nuptime_interval = 600.0"
"""So that what appears was pushed when it happened, and did not come with the next beat."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_running() as started:
        yield started


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("dashboard"), websocket=QUIET) as started:
        yield started


@pytest.fixture(scope="module")
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


@contextmanager
def watching(browser: Browser, daemon: Daemon, color_scheme: str = "light") -> Iterator[Tab]:
    """A tab that is logged in and live, and in which nothing but the expected went wrong."""
    with ExitStack() as until_closed:
        tab = Tab(browser, color_scheme=color_scheme)
        until_closed.callback(tab.page.close)
        log_in(tab, daemon)
        expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
        yield tab
        assert tab.complaints == []


@pytest.mark.extended
def test_a_wrong_password_is_reported_and_nothing_is_shown(browser: Browser, daemon: Daemon) -> None:
    tab = Tab(browser)
    log_in(tab, daemon, "wrong")
    expect(tab.page.locator("#login-message")).to_be_visible()
    expect(tab.page.locator("#login-message")).not_to_be_empty()
    expect(tab.page.locator("#dashboard")).to_be_hidden()
    expect(tab.page.locator("#connection")).to_have_attribute("data-state", "signed-out")
    assert tab.complaints_but("401") == []  # the browser's own remark about the answer
    tab.page.close()


@pytest.mark.extended
def test_a_reload_of_the_page_stays_signed_in_until_the_logout(browser: Browser, daemon: Daemon) -> None:
    with watching(browser, daemon) as tab:
        cookies = {cookie["name"]: cookie for cookie in tab.page.context.cookies()}
        session = cookies["heliosd_session"]
        assert (session["httpOnly"], session["sameSite"], session["secure"]) == (True, "Strict", False)
        for _ in range(2):
            tab.page.reload()
            expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
            expect(tab.page.locator("#user")).to_have_text("admin")
        tab.page.click("#logout")
        expect(tab.page.locator("#login")).to_be_visible()
        wait_until(lambda: not tab.page.context.cookies())
        tab.page.reload()
        expect(tab.page.locator("#login")).to_be_visible()


@pytest.mark.extended
def test_a_page_of_which_a_part_did_not_come_loads_again_by_itself(browser: Browser, daemon: Daemon) -> None:
    tab = Tab(browser)
    failures: list[Route] = []

    def fail_once(route: Route) -> None:
        if failures:
            route.continue_()
        else:
            failures.append(route)
            route.abort("internetdisconnected")

    tab.page.route("**/static/series.js", fail_once)
    with tab.page.expect_console_message(lambda message: "did not load whole" in message.text):
        tab.page.goto(f"{daemon.url}/")
    expect(tab.page.locator("#login")).to_be_visible()
    expect(tab.page.locator("#loading")).to_be_hidden()
    tab.page.close()


SHOW_WARNINGS = """async () => {
  const { showHeadline } = await import("./static/headline_view.js");
  const status = { leader: "node-1", warnings: ["a right is <b>missing</b>", "another", "another"] };
  showHeadline({ status, spans: [] }, { status, members: [], leader: null, since: null, term: 1, at: null });
  return [...document.querySelectorAll("#warnings:not([hidden]) li")].map((line) => line.textContent);
}"""
"""Draws a status that a simulated cluster does not send. Nothing that is sent meanwhile is drawn in between."""

HEALTHS = """async (peers) => {
  const { health } = await import("./static/peer_health.js");
  return peers.map((latency) => health({ latency })).map(({ level, word }) => `${level}: ${word}`);
}"""


def test_after_the_login_the_cluster_is_shown_and_live(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    with watching(browser, daemon) as tab:
        expect(tab.page.locator("#login")).to_be_hidden()
        expect(tab.page.locator("#user")).to_have_text("admin")
        leader = http.get("/api/cluster/status").json()["leader"]["id"]
        expect(tab.page.locator("#leader")).to_have_text(leader)
        expect(tab.page.locator('[data-field="observed_by"]')).to_have_text("node-1")
        expect(tab.page.locator("#members tbody tr")).to_have_count(3)
        for peer in ("node-2", "node-3"):
            expect(tab.page.locator(f'#members tr[data-member="{peer}"]')).to_contain_text("127.0.0.1:700")
        own = tab.page.locator('#members tr[data-member="node-1"]')
        expect(own).to_contain_text("this node")
        expect(tab.page.locator("#members tr").filter(has_text="Leader")).to_contain_text(leader)
        expect(tab.page.locator('#members [data-field="voter"]')).to_have_text(["voter"] * 3)
        expect(tab.page.locator("#one-more-loss")).to_have_text(
            "3 of 3 voters answer: writes survive the loss of one."
        )
        expect(tab.page.locator("#warnings")).to_be_hidden()
        assert tab.page.evaluate(SHOW_WARNINGS) == ["a right is <b>missing</b>", "another"]
        # Nobody has called it yet; one call has failed, and so many that there was an event; and it answers.
        peers = [(False, True, 0), (False, True, 1), (False, True, 2), (False, False, 3), (True, True, 0)]
        keys = ("reachable", "connection_healthy", "consecutive_errors")
        words = tab.page.evaluate(HEALTHS, [dict(zip(keys, peer, strict=True)) for peer in peers])
        assert words == [
            "unknown: Unknown",
            "warn: 1 error",
            "warn: 2 errors",
            "bad: Unreachable",
            "ok: Healthy",
        ]


@pytest.mark.extended
def test_events_that_came_while_it_was_away_are_heard_when_it_is_back(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    with watching(browser, daemon) as tab:
        assert http.post(METRICS, json={"name": "before", "type": "gauge"}).status_code == 201
        lines = tab.page.locator("#events li")
        expect(lines.first).to_contain_text("before")
        (client,) = http.get("/api/cluster/clients").json()["clients"]
        assert http.delete("/api/cluster/clients", params={"id": client["id"]}).status_code == 200
        expect(tab.page.locator("#connection")).to_have_attribute("data-state", "disconnected")
        for name in ("away_1", "away_2"):
            assert http.post(METRICS, json={"name": name, "type": "gauge"}).status_code == 201
        with tab.page.expect_websocket() as opened:
            tab.page.click("#reconnect")
        expect(lines.nth(0)).to_contain_text("away_2")
        expect(lines.nth(1)).to_contain_text("away_1")
        expect(lines.nth(2)).to_contain_text("before")
        assert "&epoch=" in opened.value.url
        assert http.post(f"{METRICS}/reset").status_code == 200


@pytest.mark.extended
def test_what_it_missed_for_good_is_noted(browser: Browser, daemon: Daemon, http: httpx.Client) -> None:
    tab = Tab(browser)
    sockets: list[WebSocketRoute] = []

    def between(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    tab.page.route_web_socket("**/ws/cluster*", between)
    log_in(tab, daemon)
    expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
    seq = http.get("/api/cluster/history", params={"limit": 1}).json()["seq"]
    gap = {"from_seq": seq + 1, "to_seq": seq + 7, "dropped": 7, "reason": "slow_consumer"}
    sockets[0].send(json.dumps({"type": "gap", "timestamp": "2026-11-23T00:00:00Z", "data": gap}))
    note = tab.page.locator('#events li[data-type="note"]')
    expect(note).to_contain_text(
        f"Events #{seq + 1} to #{seq + 7} were not heard by this page: it was too slow."
    )
    tab.page.close()


@pytest.mark.extended
def test_it_goes_on_with_a_newer_token_before_its_own_ends(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path, websocket=QUIET) as daemon:
        config = daemon.config.read_text(encoding="utf-8")
        daemon.config.write_text(config.replace("[auth]", '[auth]\ntoken_ttl = "4s"'), encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_logged(lambda line: line["event"] == "configuration reloaded")
        with watching(browser, daemon) as tab, daemon.client("viewer") as http:
            (client,) = http.get("/api/cluster/clients").json()["clients"]
            first_ends = time.time() + 4.0
            while time.time() < first_ends:
                with tab.page.expect_response("**/api/auth/refresh") as answer:
                    pass
                assert answer.value.status == 200
            with daemon.client("viewer") as again:
                assert [c["id"] for c in again.get("/api/cluster/clients").json()["clients"]] == [
                    client["id"]
                ]
            expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")


class Renewing:
    """A tab that is live and has heard that its token expires. Its requests for a newer one wait."""

    def __init__(self, browser: Browser, daemon: Daemon) -> None:
        self.tab = Tab(browser)
        self._waiting: list[Route] = []
        sockets: list[WebSocketRoute] = []

        def between(socket: WebSocketRoute) -> None:
            socket.connect_to_server()
            sockets.append(socket)

        def hold(route: Route) -> None:
            self._waiting.append(route)

        self.tab.page.route_web_socket("**/ws/cluster*", between)
        self.tab.page.route("**/api/auth/refresh", hold)
        log_in(self.tab, daemon)
        expect(self.tab.page.locator("#connection")).to_have_attribute("data-state", "live")
        sockets[0].send('{"type":"token_expiring","data":{}}')

    def request(self) -> Route:
        """The next one."""
        wait_until(
            lambda: self.tab.page.evaluate("true") and bool(self._waiting)
        )  # the browser is heard meanwhile
        return self._waiting.pop(0)


@pytest.mark.extended
def test_a_refresh_that_failed_is_tried_again(browser: Browser, daemon: Daemon) -> None:
    renewing = Renewing(browser, daemon)
    for _ in range(2):
        renewing.request().fulfill(status=503, json={"error": "busy"})
    again = renewing.request()
    with renewing.tab.page.expect_response("**/api/auth/refresh") as answer:
        again.continue_()
    assert answer.value.status == 200
    renewing.tab.page.close()


@pytest.mark.extended
def test_a_newer_token_that_comes_after_the_logout_is_revoked(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    renewing = Renewing(browser, daemon)
    page, late = renewing.tab.page, renewing.request()
    (cookie,) = page.context.cookies()
    mine = {
        "Authorization": late.request.headers["authorization"],
        "Cookie": f"{cookie['name']}={cookie['value']}",
    }
    answer = httpx.post(f"{daemon.url}/api/auth/refresh", headers=mine)
    assert answer.status_code == 200
    with page.expect_response("**/api/auth/logout"):
        page.click("#logout")
    newer = {"Authorization": f"Bearer {answer.json()['token']}"}
    assert http.get("/api/auth/me", headers=newer).status_code == 200
    with page.expect_response("**/api/auth/logout"):
        late.fulfill(status=200, headers={"Set-Cookie": answer.headers["Set-Cookie"]}, json=answer.json())
    assert http.get("/api/auth/me", headers=newer).status_code == 401
    wait_until(lambda: not page.context.cookies())
    page.close()


def test_the_token_stands_in_no_address_and_nowhere_on_the_page(browser: Browser, daemon: Daemon) -> None:
    tab = Tab(browser)
    with tab.page.expect_websocket() as opened, tab.page.expect_response("**/api/auth/login") as answer:
        log_in(tab, daemon)
    token = answer.value.json()["token"]
    expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
    assert opened.value.url.startswith(f"ws://{daemon.address}/ws/cluster?ticket=")
    assert token not in opened.value.url
    assert tab.page.url == f"{daemon.url}/"
    assert token not in tab.page.content()
    assert tab.page.evaluate(
        "[document.cookie, ...Object.values(localStorage), ...Object.values(sessionStorage)]"
    ) == [""]
    tab.page.close()


def test_a_peer_and_a_metric_appear_when_they_come_change_and_go(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    with watching(browser, daemon) as tab:
        peer = tab.page.locator('#members tr[data-member="node-7"]')
        answer = http.post("/api/cluster/peers", json={"id": "node-7", "address": "127.0.0.1:7006"})
        assert answer.status_code == 201, answer.text
        expect(peer).to_be_visible()
        expect(tab.page.locator("#events li").filter(has_text="node-7").first).to_contain_text("added")
        assert (
            http.post(METRICS, json={"name": "jobs", "type": "gauge", "help": "waiting"}).status_code == 201
        )
        assert http.put(METRICS, json={"name": "jobs", "value": 41.5}).status_code == 200
        value = tab.page.locator('#metrics tr[data-metric="jobs"] [data-field="value"]')
        expect(value).to_have_text("41.5")
        assert http.put(METRICS, json={"name": "jobs", "value": 43}).status_code == 200
        expect(value).to_have_text("43")
        assert http.delete(METRICS, params={"name": "jobs"}).status_code == 200
        assert http.delete("/api/cluster/peers", params={"id": "node-7"}).status_code == 200
        expect(value).to_have_count(0)
        expect(peer).to_have_count(0)


@pytest.mark.extended
def test_events_of_before_the_login_are_listed(browser: Browser, daemon: Daemon, http: httpx.Client) -> None:
    assert (
        http.post("/api/cluster/peers", json={"id": "node-8", "address": "127.0.0.1:7008"}).status_code == 201
    )
    assert http.delete("/api/cluster/peers", params={"id": "node-8"}).status_code == 200
    assert http.post(METRICS, json={"name": "of_before", "type": "gauge"}).status_code == 201
    with watching(browser, daemon) as tab:
        lines = tab.page.locator("#events li")
        expect(lines.first).to_contain_text("of_before registered")
        expect(lines.nth(1)).to_contain_text("node-8 removed")
        elected = re.compile(r"→ Leader|node-\d leads")
        expect(lines.filter(has_text=elected).first).to_be_visible()
        shown = [int(str(line.get_attribute("data-seq"))) for line in lines.all()]
        assert shown == sorted(shown, reverse=True)
        assert http.post(f"{METRICS}/reset").status_code == 200


@pytest.mark.extended
def test_what_a_metric_is_called_cannot_become_markup(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    evil = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    with watching(browser, daemon) as tab:
        register = {"name": "evil", "type": "gauge", "help": evil, "labels": {"env": evil}}
        answer = http.post(METRICS, json=register)
        assert answer.status_code == 201, answer.text
        row = tab.page.locator('#metrics tr[data-metric="evil"]')
        expect(row).to_contain_text(f"env={evil}")
        expect(row.locator(".under").first).to_have_text(evil)
        expect(tab.page.locator("#dashboard img, #dashboard script")).to_have_count(0)
        assert tab.page.evaluate("window.hacked") is None
    with watching(browser, daemon) as later:  # and neither where it comes with the first status
        expect(later.page.locator('#metrics tr[data-metric="evil"]')).to_contain_text(evil)
        assert later.page.evaluate("window.hacked") is None
    assert http.delete(METRICS, params={"name": "evil"}).status_code == 200


@pytest.mark.extended
def test_light_and_dark_follow_the_system(browser: Browser, daemon: Daemon) -> None:
    seen = set()
    for scheme in ("light", "dark"):
        with watching(browser, daemon, scheme) as tab:
            expect(tab.page.locator("#members tbody tr")).to_have_count(3)
            colors = (
                "[document.documentElement, document.body].map((e) => getComputedStyle(e).backgroundColor)"
            )
            seen.add(tuple(tab.page.evaluate(colors)))
    assert len(seen) == 2


def test_logging_out_ends_the_token_and_leaves_nothing_to_read(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    with watching(browser, daemon) as tab:
        with tab.page.expect_response("**/api/auth/logout") as answer:
            tab.page.click("#logout")
        assert answer.value.status == 200
        expect(tab.page.locator("#login")).to_be_visible()
        expect(tab.page.locator("#dashboard")).to_be_hidden()
        expect(tab.page.locator("#connection")).to_have_attribute("data-state", "signed-out")
        expect(tab.page.locator("#members tbody tr")).to_have_count(0)
        wait_until(lambda: http.get("/api/cluster/clients").json()["total"] == 0)


def test_logging_out_ends_what_is_still_being_asked_for(browser: Browser, daemon: Daemon) -> None:
    """Else it would be refused, which the console reports as a fault."""
    with ExitStack() as until_closed:
        tab = Tab(browser)
        until_closed.callback(tab.page.close)
        tab.page.route("**/api/cluster/uptime/history*", lambda _: None)  # no answer
        with tab.page.expect_request("**/api/cluster/uptime/history*"):
            log_in(tab, daemon)
        with tab.page.expect_event("requestfailed") as ended:
            tab.page.click("#logout")
        assert "uptime/history" in ended.value.url
        expect(tab.page.locator("#login")).to_be_visible()
        assert tab.complaints == []


@pytest.mark.extended
def test_it_reconnects_by_itself_when_the_daemon_comes_back(browser: Browser, tmp_path: Path) -> None:
    with ExitStack() as until_closed:
        with running(tmp_path, websocket=QUIET) as first:
            tab = Tab(browser)
            until_closed.callback(tab.page.close)
            log_in(tab, first)
            connection = tab.page.locator("#connection")
            expect(connection).to_have_attribute("data-state", "live")
            assert tab.complaints == []
            assert first.stop() == 0
            expect(connection).to_have_attribute("data-state", "reconnecting")
            expect(tab.page.locator("#connection-reason")).to_be_visible()
            expect(tab.page.locator("#dashboard")).to_have_attribute("data-fresh", "no")
        config = first.config.read_text(encoding="utf-8").replace("127.0.0.1:0", first.address)
        first.config.write_text(config, encoding="utf-8")
        with running(tmp_path, first.config) as again, again.client() as http:
            # Its token holds, since the key is in the data directory: nobody has to log in.
            expect(connection).to_have_attribute("data-state", "live")
            expect(tab.page.locator("#dashboard")).to_have_attribute("data-fresh", "yes")
            assert http.post(METRICS, json={"name": "back", "type": "gauge"}).status_code == 201
            expect(tab.page.locator('#metrics tr[data-metric="back"]')).to_be_visible()
            # The browser's own remarks. A connection that waits to be accepted is reset when the port closes; one
            # that is reset just after it was made is not connected.
            remarks = "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_SOCKET_NOT_CONNECTED"
            assert tab.complaints_but(*remarks) == []


# -- what else the daemon has for a browser ---------------------------------------------------------------------


@pytest.mark.extended
def test_the_page_of_the_descriptions_shows_every_route_message_and_close_code(
    browser: Browser, daemon: Daemon, http: httpx.Client
) -> None:
    openapi, asyncapi = http.get("/openapi.json").json(), http.get("/asyncapi.json").json()
    tab = Tab(browser, viewport={"width": 390, "height": 800})
    requested: list[str] = []
    tab.page.on("request", lambda request: requested.append(request.url))
    tab.page.goto(f"{daemon.url}/docs")
    tab.page.wait_for_selector("#close-codes")
    text = tab.page.inner_text("main")
    for path, item in openapi["paths"].items():
        if not all(operation.get("deprecated") for operation in item.values()):
            assert path in text
    assert {m["name"] for m in asyncapi["components"]["messages"].values()} <= set(text.split())
    assert set(asyncapi["channels"]["cluster"]["x-close-codes"]) <= set(text.split())
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.complaints == []
    assert {url.startswith(daemon.url) for url in requested} == {True}
    tab.page.close()


IN_PAGE = """
([token, subscribe]) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`ws://${location.host}/ws/cluster?token=${token}`);
  const got = [];
  socket.onopen = () => socket.send(JSON.stringify(subscribe));
  socket.onerror = () => reject(new Error("the connection failed"));
  socket.onmessage = (event) => {
    got.push(JSON.parse(event.data));
    if (got.length === 2) {
      resolve({ extensions: socket.extensions, got });
      socket.close();
    }
  };
})
"""


def test_a_browser_takes_compression_and_speaks_with_it_both_ways(browser: Browser, daemon: Daemon) -> None:
    tab = Tab(browser)
    tab.page.goto(f"{daemon.url}/")
    subscribe = {"type": "subscribe", "id": "one", "data": {"state_changes": True, "latency": False}}
    report = tab.page.evaluate(IN_PAGE, [daemon.token("viewer"), subscribe])
    agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    assert report["extensions"] == agreed
    assert [message["type"] for message in report["got"]] == ["status", "subscribed"]
    assert report["got"][1]["id"] == "one"
    tab.page.close()
