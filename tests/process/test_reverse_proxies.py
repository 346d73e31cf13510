"""nginx, HAProxy, Apache, Caddy, Traefik and Envoy, configured as in docs/proxies.md, in front of a started daemon.

`make test` has the first three of them, without a browser; `make prove-proxies` all, and Caddy in
two versions.
"""

from __future__ import annotations

import socket as stdlib
import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect
from websockets.sync.client import ClientConnection

from tests.support.browser_page import Tab, browser_running, fill_in_login
from tests.support.daemon_process import PASSWORD, closing_connection, receive, wait_until
from tests.support.deadlines import SECONDS
from tests.support.reverse_proxies import CLIENT, FROM_PYPI, IN_SHORT, PROXIES, Proxied, proxied

METRICS = "/api/cluster/custom-metrics"
QUIET = "status_interval = 600.0\nlatency_interval = 600.0\nuptime_interval = 600.0"
"""So that nothing but pings comes."""
IDLE_SECONDS = 95

ALL = [
    pytest.param(
        name,
        marks=[
            *([] if name in FROM_PYPI else [pytest.mark.needs(name)]),
            *([] if name in IN_SHORT else [pytest.mark.slow]),
        ],
    )
    for name in PROXIES
]


@pytest.fixture(scope="module", params=ALL)
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_running("--host-resolver-rules=MAP ops.example 127.0.0.1") as started:
        yield started


def log_in(http: httpx.Client) -> None:
    answer = http.post("/api/auth/login", json={"username": "admin", "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    http.headers["Authorization"] = f"Bearer {answer.json()['token']}"


def test_a_page_can_log_in_and_chunks_arrive(behind: Proxied) -> None:
    with behind.client() as http:
        log_in(http)
        pieces = iter([b'{"name":"by_proxy",', b'"type":"gauge"}'])
        made = http.post(METRICS, content=pieces, headers={"Content-Type": "application/json"})
        assert made.status_code == 201, made.text
        assert http.delete(METRICS, params={"name": "by_proxy"}).status_code == 200
        http.headers["Origin"] = "https://evil.example"
        assert http.post(f"{METRICS}/reset").status_code == 403


def connected(behind: Proxied, **headers: str) -> AbstractContextManager[ClientConnection]:
    """A WebSocket at the proxy, as a page of the proxy's own origin would open it."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    socket = stdlib.create_connection(("127.0.0.1", behind.port), SECONDS, source_address=(CLIENT, 0))
    options = {
        "sock": socket,
        "ssl": tls,
        "origin": f"https://{behind.host}",
        "additional_headers": headers,
        "proxy": None,
        "ping_interval": None,
    }
    url = f"wss://{behind.host}{behind.prefix}/ws/cluster?token={behind.daemon.token()}"
    return closing_connection(url, options)


@pytest.mark.parametrize("forged", [{}, {"X-Forwarded-For": "192.0.2.99"}, {"Forwarded": "for=192.0.2.99"}])
def test_a_websocket_is_live_and_has_the_clients_address(behind: Proxied, forged: dict[str, str]) -> None:
    logged = len(behind.daemon.lines)

    def left() -> list[str]:
        lines = behind.daemon.lines[logged:]
        return [line["address"] for line in lines if line["event"] == "client left"]

    with connected(behind, **forged) as client, behind.daemon.client() as http:
        receive(client, "status")
        (view,) = http.get("/api/cluster/clients").json()["clients"]
        assert view["address"] == CLIENT
        assert http.post(METRICS, json={"name": "live", "type": "gauge"}).status_code == 201
        assert "live" in receive(client, "custom_metrics")["data"]
        assert http.delete(METRICS, params={"name": "live"}).status_code == 200
        client.close()
        wait_until(lambda: bool(left()))
    assert left() == [CLIENT]


def test_an_event_stream_is_not_buffered(behind: Proxied) -> None:
    with behind.client() as http, behind.daemon.client() as direct:
        log_in(http)
        with http.stream("GET", "/api/cluster/events") as stream:
            lines = stream.iter_lines()
            assert '"type":"status"' in next(line for line in lines if line.startswith("data:"))
            assert direct.post(METRICS, json={"name": "streamed", "type": "gauge"}).status_code == 201
            assert any('"streamed"' in line for line in lines if '"custom_metrics"' in line and "seq" in line)
        assert direct.delete(METRICS, params={"name": "streamed"}).status_code == 200


def connections(behind: Proxied) -> int:
    with behind.daemon.client() as http:
        return int(http.get("/api/cluster/clients").json()["total"])


def check_page(browser: Browser, behind: Proxied) -> None:
    """Log in on the page, and see what happens after that."""
    tab = Tab(browser, ignore_https_errors=True)
    tab.page.goto(f"https://{behind.host}{behind.prefix}/")
    fill_in_login(tab)
    expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
    with behind.daemon.client() as http:
        assert http.post(METRICS, json={"name": "seen", "type": "gauge"}).status_code == 201
        expect(tab.page.locator('#metrics tr[data-metric="seen"]')).to_be_visible()
        assert http.delete(METRICS, params={"name": "seen"}).status_code == 200
        expect(tab.page.locator('#metrics tr[data-metric="seen"]')).to_have_count(0)
    cookies = {cookie["name"]: cookie for cookie in tab.page.context.cookies()}
    assert cookies["heliosd_session"]["secure"]
    assert tab.complaints == []
    tab.page.close()
    wait_until(lambda: not connections(behind))


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_the_page_logs_in_and_is_live(browser: Browser, behind: Proxied) -> None:
    check_page(browser, behind)


@pytest.mark.slow
@pytest.mark.needs("chromium")
@pytest.mark.parametrize("name", ALL)
def test_the_page_and_a_websocket_work_under_a_prefix(browser: Browser, tmp_path: Path, name: str) -> None:
    with proxied(name, tmp_path, prefix=True) as behind:
        check_page(browser, behind)
        with connected(behind) as client:
            receive(client, "status")


@pytest.mark.slow
@pytest.mark.needs(*(name for name in PROXIES if name not in FROM_PYPI))
def test_a_websocket_that_is_idle_for_95_seconds_stays_open(tmp_path: Path) -> None:
    with ExitStack() as until_closed:
        opened = []
        for name in PROXIES:
            folder = tmp_path / name
            folder.mkdir()
            behind = until_closed.enter_context(proxied(name, folder, websocket=QUIET))
            opened.append((behind, until_closed.enter_context(connected(behind))))
        for _, client in opened:
            receive(client, "status")
        time.sleep(IDLE_SECONDS)  # what is shown is that nothing happens in it
        for behind, client in opened:
            with behind.daemon.client() as http:
                assert http.post(METRICS, json={"name": "late", "type": "gauge"}).status_code == 201
            assert "late" in receive(client, "custom_metrics")["data"]
