"""Nothing that a peer, a user or a daemon sends becomes markup on the dashboard, in a real browser."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, WebSocketRoute, expect

from tests.support.browser_page import Tab, browser_running, log_in
from tests.support.daemon_process import Daemon, running

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]

PAYLOADS = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    '"><svg onload=window.hacked=1>',
    "'><iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "javascript:window.hacked=1",
    "</title></style></textarea><script>window.hacked=1</script>",
    "<a href=javascript:window.hacked=1 autofocus onfocus=window.hacked=1>x</a>",
    "<math><mtext></table><mglyph><style><img src=x onerror=window.hacked=1>",
    "${window.hacked=1}{{constructor.constructor('window.hacked=1')()}}",
    "__proto__",
    "constructor",
    "\u202e\u2066<b onclick=window.hacked=1>\u0000\U0001f4a9",
    "&lt;script&gt;window.hacked=1&lt;/script&gt;&#x3C;script>",
    "data:text/html,<script>window.hacked=1</script>",
    "x" * 5000 + "<script>window.hacked=1</script>",
)
LEFT_ALONE = {"type", "token", "ticket", "permissions", "expires_at", "epoch"}
"""Without these fields the page would not get as far as to draw anything."""


class Poison:
    """Puts a payload into every text and every name of a JSON value."""

    def __init__(self, first: int) -> None:
        self._next = itertools.cycle([*PAYLOADS[first:], *PAYLOADS[:first]])
        self.used: set[str] = set()

    def _payload(self) -> str:
        payload = next(self._next)
        self.used.add(payload)
        return payload

    def value(self, value: Any, *, names: bool = False) -> Any:
        """`names`: the keys are names of metrics or members, too."""
        match value:
            case dict():
                return {
                    (self._payload() if names else key): (
                        inner
                        if key in LEFT_ALONE and not isinstance(inner, dict)
                        else self.value(inner, names=key in {"custom_metrics", "labels"})
                    )
                    for key, inner in value.items()
                }
            case list():
                return [self.value(inner) for inner in value]
            case str():
                return self._payload()
            case _:
                return value

    def message(self, text: str) -> str:
        message = json.loads(text)
        data = self.value(message.get("data"), names=message["type"] == "custom_metrics")
        return json.dumps({**message, "data": data})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder: Path = tmp_path_factory.mktemp("markup")
    with running(folder, websocket="status_interval = 0.3\nlatency_interval = 0.3") as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_running() as started:
        yield started


@pytest.mark.parametrize("first", range(0, len(PAYLOADS), 3))
def test_no_text_of_any_field_runs_or_becomes_an_element(
    browser: Browser, daemon: Daemon, first: int
) -> None:
    tab, poison = Tab(browser), Poison(first)

    def poisoned(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=poison.value(answer.json()))

    def between(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda message: socket.send(poison.message(str(message))))
        for message in made_up():
            socket.send(poison.message(json.dumps(message)))

    tab.page.route("**/api/cluster/**", poisoned)
    tab.page.route("**/api/auth/me", poisoned)
    tab.page.route_web_socket("**/ws/cluster*", between)
    log_in(tab, daemon)
    expect(tab.page.locator("#connection")).to_have_attribute("data-state", "live")
    expect(tab.page.locator("#events li").first).to_be_attached()
    with daemon.client() as http:
        labels = {"env": PAYLOADS[first]}
        body = {"name": f"m_{first}", "type": "histogram", "help": PAYLOADS[first], "labels": labels}
        assert http.post("/api/cluster/custom-metrics", json=body).status_code == 201
        answer = http.post("/api/cluster/leadership/transfer", json={"target": f"node-{first % 2 + 1}"})
        assert answer.status_code == 200
    expect(tab.page.locator("#metrics tbody tr").first).to_be_attached()
    for clicked in ('[data-act="may-stop"]', '[data-act="end-permit"]', '[data-act="faults"]'):
        tab.page.click(clicked)
        expect(tab.page.locator("#act-dialog, #act-report:not(:empty)").first).to_be_visible()
        tab.page.keyboard.press("Escape")
    tab.page.locator("#clients-list summary").click()
    tab.page.locator("#reigns-panel summary").evaluate("summary => summary.click()")
    tab.page.locator("#scrub-back").evaluate("button => button.click()")
    tab.page.wait_for_timeout(1500)  # whatever would run has the time to
    assert poison.used == set(PAYLOADS)
    assert tab.page.evaluate("window.hacked") is None
    attributes = "[onclick], [onerror], [onload], [onfocus], [href^=java]"
    foreign = f"#dashboard :is(img, script, iframe, math, style, {attributes})"
    assert tab.page.locator(foreign).count() == 0
    assert tab.page.evaluate("({}).polluted ?? Object.keys(Object.prototype).length") == 0
    assert tab.complaints_but("Failed to load resource") == []
    tab.page.unroute_all(behavior="wait")
    tab.page.close()


def made_up() -> list[dict[str, Any]]:
    """Messages that a quiet cluster does not send."""
    now = "2026-11-28T03:00:00.000000Z"
    state: dict[str, Any] = {
        "old_state": "",
        "new_state": "",
        "leader": "",
        "member": "",
        "leader_name": "",
        "member_name": "",
    }
    state.update(cause="", evidence={"x": 1}, term=1)
    peer = {"event_type": "", "peer_id": "", "peer_address": "", "peer_name": "", "cause": ""}
    snapshot = {
        "type": "",
        "success": False,
        "error_message": "",
        "index": 1,
        "size_bytes": 1,
        "duration_ms": 1,
    }
    metric = {"name": "", "type": "", "help": "", "labels": {"a": ""}, "value": 1, "created_at": ""}
    gap = {"from_seq": 1, "to_seq": 2, "dropped": 1, "reason": ""}
    return [
        {"type": kind, "timestamp": now, "seq": 1 + number, "data": data}
        for number, (kind, data) in enumerate(
            [
                ("state_change", state),
                ("peer_change", peer),
                ("snapshot", snapshot),
                ("custom_metrics", {"m": metric}),
                ("gap", gap),
                ("error", {"error": "", "code": ""}),
            ]
        )
    ]
