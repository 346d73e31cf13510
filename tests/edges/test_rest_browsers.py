"""What browsers need and what they must not be able to do: pages, policies, and other origins."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from heliosd.web.rest.static_files import STATIC_DIRECTORY, content_security_policy, etag_matches, load_pages
from tests.support.rest_server import Rest

DASH = "https://dash.example.com"
EVIL = "https://evil.example"


@pytest.fixture
async def rest() -> Rest:
    return Rest()


async def test_the_dashboard_is_served_without_a_token(autojump_clock: MockClock, rest: Rest) -> None:
    answer = await rest.ask("GET", "/", user=None)
    assert (answer.status_code, answer.content_type) == (200, "text/html; charset=utf-8")
    assert await answer.get_data() == (STATIC_DIRECTORY / "index.html").read_bytes()


async def test_every_file_of_the_dashboard_is_served_as_what_it_is(
    autojump_clock: MockClock, rest: Rest
) -> None:
    kinds = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
    for path in STATIC_DIRECTORY.iterdir():
        answer = await rest.ask("GET", f"/static/{path.name}", user=None)
        assert (answer.status_code, await answer.get_data()) == (200, path.read_bytes())
        assert answer.content_type.split(";")[0] == kinds[path.suffix]


@pytest.mark.parametrize(
    "name",
    [
        "../app.py",
        "..%2fapp.py",
        "..%5capp.py",
        "%2e%2e/app.py",
        "..",
        ".",
        "",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "app.js%00",
        "app.js/",
        "./app.js",
        "APP.JS",
        "__pycache__",
        "nope.js",
        "....//app.py",
        "%c0%ae%c0%ae/app.py",
    ],
)
async def test_nothing_but_the_dashboards_files_is_served(
    autojump_clock: MockClock, rest: Rest, name: str
) -> None:
    answer = await rest.ask("GET", f"/static/{name}", user=None)
    assert (answer.status_code, await answer.get_json()) == (404, {"error": "Not found"})


async def test_a_file_that_has_not_changed_is_not_sent_again(autojump_clock: MockClock, rest: Rest) -> None:
    first = await rest.ask("GET", "/static/app.js", user=None)
    assert first.headers["Cache-Control"] == "no-cache"
    etag = first.headers["ETag"]
    for asked in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await rest.ask("GET", "/static/app.js", user=None, headers={"If-None-Match": asked})
        assert (again.status_code, await again.get_data()) == (304, b"")
        assert again.headers["ETag"] == etag
    changed = await rest.ask("GET", "/static/app.js", user=None, headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200


def test_an_empty_if_none_match_matches_nothing() -> None:
    assert not etag_matches("", '"abc"')


def test_only_files_of_a_known_kind_are_loaded(tmp_path: Path) -> None:
    for name in ("index.html", "app.js", "notes.md", ".hidden", "app.js~"):
        (tmp_path / name).write_text(name)
    (tmp_path / "deep.js").mkdir()
    assert set(load_pages(tmp_path)) == {"index.html", "app.js"}


async def test_a_page_may_load_and_reach_only_the_daemon(autojump_clock: MockClock, rest: Rest) -> None:
    answer = await rest.ask("GET", "/", user=None, headers={"Host": "localhost:8080"})
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self' ws://localhost:8080 wss://localhost:8080"


@pytest.mark.parametrize("host", ["", "a; script-src *", "a b", "a,b", "a\r\nX: y", "é"])
def test_a_forged_host_adds_nothing_to_the_policy(host: str) -> None:
    assert "connect-src 'self';" in content_security_policy(host)


async def test_a_listed_origin_reads_answers_and_may_write(autojump_clock: MockClock, rest: Rest) -> None:
    rest.configure(server={"allowed_origins": (DASH,)})
    for method, path in (("GET", "/api/cluster/status"), ("POST", "/api/cluster/snapshot")):
        answer = await rest.ask(method, path, headers={"Origin": DASH})
        assert answer.status_code in {200, 201}
        assert answer.headers["Access-Control-Allow-Origin"] == DASH
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" in answer.headers["Vary"]
    refused = await rest.ask("GET", "/api/cluster/status", user=None, headers={"Origin": DASH})
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, DASH)


async def test_a_foreign_origin_reads_no_answer_and_writes_nothing(
    autojump_clock: MockClock, rest: Rest
) -> None:
    rest.configure(server={"allowed_origins": (DASH,)})
    for origin in (EVIL, "null", f"{DASH}.evil.example", f"{DASH}, {EVIL}"):
        answer = await rest.ask("GET", "/api/cluster/status", headers={"Origin": origin})
        assert "Access-Control-Allow-Origin" not in answer.headers
        answer = await rest.ask("POST", "/api/cluster/snapshot", headers={"Origin": origin})
        assert answer.status_code == 403
    assert rest.lone.index == 0


async def test_a_refused_origin_is_named_with_the_host_and_the_key_in_the_answer_and_in_the_log(
    autojump_clock: MockClock, rest: Rest, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"Origin": EVIL, "Host": "helios.example:8443"}
    status, body = await rest.ask_json("POST", "/api/auth/login", {}, user=None, headers=headers)
    assert status == 403
    for text in (body["error"], "".join(capsys.readouterr())):
        for part in (EVIL, "helios.example:8443", "server.allowed_origins"):
            assert part in text


async def test_a_forged_host_does_not_make_a_foreign_origin_ours(
    autojump_clock: MockClock, rest: Rest
) -> None:
    for forged in (
        {"Host": "evil.example"},
        {"X-Forwarded-Host": "evil.example"},
        {"Forwarded": "host=evil.example"},
    ):
        answer = await rest.ask("POST", "/api/cluster/snapshot", headers={"Origin": EVIL, **forged})
        assert answer.status_code == 403


async def test_a_preflight_is_answered_for_listed_origins_only(autojump_clock: MockClock, rest: Rest) -> None:
    rest.configure(server={"allowed_origins": (DASH, "null")})
    asked = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
    for origin in (DASH, "null"):
        headers = (
            await rest.ask("OPTIONS", "/api/cluster/peers", user=None, headers={"Origin": origin, **asked})
        ).headers
        assert headers["Access-Control-Allow-Origin"] == origin
        assert "DELETE" in headers["Access-Control-Allow-Methods"]
        allowed = set(headers["Access-Control-Allow-Headers"].lower().split(", "))
        assert allowed == {
            "authorization",
            "cache-control",
            "content-type",
            "idempotency-key",
            "last-event-id",
        }
    refused = await rest.ask("OPTIONS", "/api/cluster/peers", user=None, headers={"Origin": EVIL, **asked})
    assert refused.status_code == 403
    assert "Access-Control-Allow-Origin" not in refused.headers


async def test_a_host_that_is_no_name_at_all_breaks_nothing(autojump_clock: MockClock, rest: Rest) -> None:
    for host in ("", "..", "a" * 300, "\xff", "a:b:c", "[", "xn--\x80"):
        answer = await rest.ask("GET", "/healthz", user=None, headers={"Host": host})
        assert answer.status_code == 200
