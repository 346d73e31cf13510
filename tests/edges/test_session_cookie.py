"""The session cookie: what it authenticates, what a foreign page cannot do with it, and how it ends."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
import trio
from trio.testing import MockClock

from heliosd.errors import StoreFull
from heliosd.web.session_cookie import NAME
from tests.support.rest_server import PASSWORD, Rest

OWN = "http://localhost"
EVIL = "https://evil.example"
SESSION = "/api/auth/session"
SNAPSHOT = "/api/cluster/snapshot"


@pytest.fixture
async def rest() -> Rest:
    return Rest()


async def begin(rest: Rest, token: str | None = None, **options: object) -> str:
    """The cookie that a page gets for a token, as its browser sends it back."""
    answer = await rest.ask("POST", SESSION, token=token or rest.token("operator"), **options)  # type: ignore[arg-type]
    assert answer.status_code == 200
    return f"{NAME}={SimpleCookie(answer.headers['Set-Cookie'])[NAME].value}"


async def test_the_cookie_is_for_the_daemon_alone_and_lasts_as_long_as_its_token(
    autojump_clock: MockClock, rest: Rest
) -> None:
    answer = await rest.ask("POST", SESSION, token=rest.token("viewer", ttl=1000))
    assert answer.status_code == 200
    assert (await answer.get_json())["user_id"] == "viewer"
    cookie = SimpleCookie(answer.headers["Set-Cookie"])[NAME]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert 999 <= int(cookie["max-age"]) <= 1001
    assert cookie["secure"] == ""
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_under_tls_the_cookie_is_secure(autojump_clock: MockClock, rest: Rest) -> None:
    answer = await rest.ask("POST", SESSION, scheme="https")
    assert SimpleCookie(answer.headers["Set-Cookie"])[NAME]["secure"] is True


async def test_below_a_base_path_the_cookie_is_for_that_path(autojump_clock: MockClock, rest: Rest) -> None:
    rest.configure(server={"base_path": "/helios"})
    answer = await rest.ask("POST", SESSION)
    assert SimpleCookie(answer.headers["Set-Cookie"])[NAME]["path"] == "/helios"


async def test_the_cookie_authenticates_reads_and_the_event_stream(
    autojump_clock: MockClock, rest: Rest
) -> None:
    cookie = await begin(rest, rest.token("viewer"))
    for path in ("/api/auth/me", "/api/cluster/status", "/api/cluster/events", "/metrics"):
        answer = await rest.ask("GET", path, user=None, headers={"Cookie": f"theme=dark; {cookie}; x=y"})
        assert answer.status_code == 200
    answer = await rest.ask("GET", SNAPSHOT, user=None, headers={"Cookie": cookie.replace("=", "=x", 1)})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": EVIL}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://dash.example.com"}, 403),  # listed, and yet another origin
        ({"Origin": "http://localhost:9999"}, 403),  # the same site on another port
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": EVIL, "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Origin": OWN}, 201),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 201),
    ],
)
async def test_a_write_by_cookie_must_come_from_an_own_page(
    autojump_clock: MockClock, rest: Rest, headers: dict[str, str], status: int
) -> None:
    rest.configure(server={"allowed_origins": ("https://dash.example.com",)})
    cookie = await begin(rest)
    answer = await rest.ask("POST", SNAPSHOT, user=None, headers={"Cookie": cookie, **headers})
    assert answer.status_code == status
    assert rest.lone.index == (1 if status == 201 else 0)


async def test_other_credentials_come_before_the_cookie(autojump_clock: MockClock, rest: Rest) -> None:
    cookie = await begin(rest)
    answer = await rest.ask("GET", "/api/auth/me", user="viewer", headers={"Cookie": cookie})
    assert (await answer.get_json())["user_id"] == "viewer"
    assert (await rest.ask("POST", SNAPSHOT, user="operator", headers={"Cookie": cookie})).status_code == 201
    answer = await rest.ask("GET", "/api/auth/me", token="nonsense", headers={"Cookie": cookie})
    assert answer.status_code == 401


async def test_two_different_session_cookies_are_400(autojump_clock: MockClock, rest: Rest) -> None:
    both = f"{await begin(rest)}; {await begin(rest)}"
    assert (await rest.ask("GET", "/api/auth/me", user=None, headers={"Cookie": both})).status_code == 400


@pytest.mark.parametrize(("method", "path"), [("DELETE", SESSION), ("POST", "/api/auth/logout")])
async def test_a_session_that_was_ended_is_over_for_the_browser_and_for_the_daemon(
    autojump_clock: MockClock, rest: Rest, method: str, path: str
) -> None:
    cookie = await begin(rest)
    answer = await rest.ask(method, path, user=None, headers={"Cookie": cookie, "Origin": OWN})
    assert (answer.status_code, await answer.get_json()) == (200, {"ok": True})
    gone = SimpleCookie(answer.headers["Set-Cookie"])[NAME]
    assert (gone.value, gone["max-age"]) == ("", "0")
    assert (await rest.ask("GET", "/api/auth/me", user=None, headers={"Cookie": cookie})).status_code == 401
    assert len(rest.roster.revoked) == len(rest.saved) == 1


async def test_a_logout_that_the_disk_refuses_ends_the_token_in_the_cookie_as_well(
    autojump_clock: MockClock, rest: Rest
) -> None:
    cookie = await begin(rest)
    rest.disk_trouble = StoreFull("disk full")
    answer = await rest.ask("POST", "/api/auth/logout", user="viewer", headers={"Cookie": cookie})
    assert answer.status_code == 507
    assert (await rest.ask("GET", "/api/auth/me", user=None, headers={"Cookie": cookie})).status_code == 401
    assert len(rest.roster.revoked) == 2


async def test_a_foreign_page_cannot_end_a_session(autojump_clock: MockClock, rest: Rest) -> None:
    cookie = await begin(rest)
    for headers in ({}, {"Origin": EVIL}):
        answer = await rest.ask("DELETE", SESSION, user=None, headers={"Cookie": cookie, **headers})
        assert answer.status_code == 403
    assert (await rest.ask("GET", "/api/auth/me", user=None, headers={"Cookie": cookie})).status_code == 200


async def test_a_page_that_is_loaded_again_gets_a_token_by_its_cookie_and_the_session_goes_on(
    autojump_clock: MockClock, rest: Rest
) -> None:
    cookie = await begin(rest, rest.token("operator", ttl=1000))
    await trio.sleep(900)
    headers = {"Cookie": cookie, "Origin": OWN}
    answer = await rest.ask("POST", "/api/auth/refresh", user=None, headers=headers)
    token = (await answer.get_json())["token"]
    assert SimpleCookie(answer.headers["Set-Cookie"])[NAME].value == token
    await trio.sleep(200)
    assert (await rest.ask("GET", "/api/auth/me", token=token)).status_code == 200
    assert (await rest.ask("GET", "/api/auth/me", user=None, headers={"Cookie": cookie})).status_code == 401
    for other in ({}, {"Cookie": await begin(rest, rest.token("viewer"))}):
        without = await rest.ask("POST", "/api/auth/refresh", token=token, headers=other)
        assert "Set-Cookie" not in without.headers


async def test_a_login_sets_no_cookie(rest: Rest) -> None:
    body = {"username": "viewer", "password": PASSWORD}
    assert "Set-Cookie" not in (await rest.ask("POST", "/api/auth/login", body, user=None)).headers
