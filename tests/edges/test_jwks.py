"""The outside issuer over a real connection: its keys are fetched when they are needed, and no more than that."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.errors import IssuerUnreachable
from heliosd.web import jwks
from tests.support.issuer_server import IssuerServer, Manner, issuer_server
from tests.support.issuer_tokens import ISSUER, jwk, key, signed
from tests.support.rest_server import START, Rest

EXP = START + 10**9  # Trio's real clock begins anywhere


@dataclass
class World:
    """A heliosd that takes tokens of an issuer."""

    server: IssuerServer
    rest: Rest
    clock: MockClock

    def token(self, kid: str = "k1", **changes: Any) -> str:
        return self.server.token(kid, **({"exp": EXP} | changes))

    async def status(self, token: str) -> int:
        answer = await self.rest.ask("GET", "/api/auth/me", token=token)
        return int(answer.status_code)

    def pass_time(self, seconds: float = jwks.MIN_INTERVAL_SECONDS) -> None:
        """By default so much that one more fetch is allowed. A test that uses this asks for `mock_clock` itself."""
        self.clock.jump(seconds)

    @property
    def fetches(self) -> int:
        return len(self.server.requests)


@pytest.fixture
async def world(mock_clock: MockClock) -> AsyncIterator[World]:
    """On a clock that runs like the real one, and that a test may set forward."""
    mock_clock.rate = 1.0
    rest = Rest()
    async with issuer_server() as server, trio.open_nursery() as nursery:
        rest.configure(auth={"jwks_url": server.url, "jwks_issuer": ISSUER})
        nursery.start_soon(rest.issuer.run)
        yield World(server, rest, mock_clock)
        nursery.cancel_scope.cancel()


async def test_a_token_of_the_issuer_opens_the_api_and_its_keys_are_fetched_once(world: World) -> None:
    status, me = await world.rest.ask_json("GET", "/api/auth/me", token=world.token(roles=["viewer", "x"]))
    assert status == 200
    assert (me["user_id"], me["roles"]) == ("olga", ["viewer", "x"])
    assert me["permissions"] == ["cluster:read", "cluster:watch"]
    for number in range(5):
        assert await world.status(world.token(jti=f"j{number}")) == 200
    assert world.fetches == 1
    assert world.server.requests[0].startswith(b"GET /keys?v=1 HTTP/1.1\r\n")


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
async def test_each_kind_of_key_works_from_the_published_document(world: World, kind: str) -> None:
    world.server.published = {"k1": (kind, 0)}
    assert await world.status(world.token()) == 200


async def test_an_unknown_role_gives_no_rights(world: World) -> None:
    token = world.token(roles=["unheard-of"])
    assert (await world.rest.ask("GET", "/api/cluster/status", token=token)).status_code == 403


async def test_nothing_is_fetched_for_tokens_that_are_not_the_issuers(world: World) -> None:
    tokens = [
        world.rest.token("viewer"),
        "a.b.c",
        "",
        world.token(iss="https://evil.example/"),
        signed(key("EdDSA"), None, alg="EdDSA", exp=EXP),
        signed(key("EdDSA"), "k1", alg="HS256", exp=EXP),
        signed(key("EdDSA"), "k1", alg="none", exp=EXP),
        "x" * 10_000,
    ]
    assert [await world.status(token) for token in tokens] == [200, *[401] * 7]
    assert world.fetches == 0


@pytest.mark.parametrize("header", ["jku", "x5u"])
async def test_no_url_in_a_token_is_ever_fetched(world: World, header: str) -> None:
    trap = f"http://127.0.0.1:{world.server.port}/trap"
    token = signed(key("EdDSA", 1), "k1", alg="EdDSA", header={header: trap}, exp=EXP)
    assert await world.status(token) == 401
    assert world.fetches == 0
    assert await world.status(signed(key("EdDSA", 1), "k1", alg="EdDSA", iss=trap, exp=EXP)) == 401
    assert world.fetches == 0


async def test_a_new_key_is_found_and_one_that_was_withdrawn_counts_no_more(
    mock_clock: MockClock, world: World
) -> None:
    old = world.token()
    assert await world.status(old) == 200
    world.server.published = {"k2": ("ES256", 0)}
    world.pass_time()
    assert await world.status(world.token("k2")) == 200
    assert world.fetches == 2
    assert await world.status(old) == 401


async def test_keys_that_are_not_fresh_are_fetched_again(mock_clock: MockClock, world: World) -> None:
    token = world.token()
    assert await world.status(token) == 200
    world.server.published = {"k2": ("ES256", 0)}
    world.pass_time(jwks.FRESH_SECONDS)
    assert await world.status(token) == 401
    assert world.fetches == 2


async def test_forged_kids_do_not_flood_the_issuer(mock_clock: MockClock, world: World) -> None:
    assert await world.status(world.token()) == 200
    world.pass_time()
    statuses: list[int] = []

    async def forge(number: int) -> None:
        token = signed(key("EdDSA", 1), f"forged-{number}", alg="EdDSA", exp=EXP)
        statuses.append(await world.status(token))

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(forge, number)
    assert statuses == [401] * 100
    assert world.fetches == 2
    assert await world.status(world.token()) == 200


async def test_only_so_many_requests_may_wait_for_one_fetch(world: World) -> None:
    world.server.manner = "silent"
    outcomes: list[str] = []

    async def wait() -> None:
        try:
            await world.rest.authenticator.prepare(world.token())
            outcomes.append("known")
        except IssuerUnreachable:
            outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        for _ in range(jwks.MAX_WAITING + 20):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.01)
        assert outcomes == ["refused"] * 20
        world.server.release.set()
    assert outcomes.count("known") == jwks.MAX_WAITING
    assert world.fetches == 1


MANNERS: list[Manner] = ["silent", "hangs up", "drips", "drips its head", "huge", "endless", "redirects"]


@pytest.mark.parametrize("manner", MANNERS)
async def test_an_issuer_that_misbehaves_is_503_for_its_own_tokens_only(
    mock_clock: MockClock, world: World, manner: Manner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.3)
    world.server.manner = manner
    answer = await world.rest.ask("GET", "/api/auth/me", token=world.token())
    assert answer.status_code == 503
    assert await answer.get_json() == {"error": "The issuer of this token cannot be reached"}
    assert int(answer.headers["Retry-After"]) >= 1
    assert await world.status(world.rest.token("viewer")) == 200
    # Asked again at once: no further fetch. On a busy machine the time may be over before the first has arrived.
    assert await world.status(world.token()) == 503
    assert world.fetches <= 1
    # The connection is not left behind.
    while world.server.open:
        if manner == "silent":
            world.server.release.set()
        await trio.sleep(0.01)
    monkeypatch.undo()
    world.server.manner = "well"
    world.pass_time()
    assert await world.status(world.token()) == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"keys":[]}',
        b'{"keys":{}}',
        b'{"keys":[1,null,{}]}',
        b'{"keys":[{"kty":"RSA"}]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"keys":[{"kty":"oct","k":"AAAA","kid":"k1"}]}',
        b'{"keys":[{"kty":"oct","kid":"k1"}]}',
        b'{"keys":[{"kty":"RSA","kid":"k1","alg":["RS256"]}]}',
        b'{"keys":[{"kty":{},"kid":["k1"],"use":["sig"]}]}',
        b'{"keys":[{"kty":"RSA","kid":"k1","alg":"none"}]}',
        b'{"keys":[{"kty":"RSA","kid":"k1","n":"AQAB","e":"AQAB","d":"AQAB"}]}',
        b'{"keys":[{"kty":"RSA","kid":"k1","n":"' + b"AQAB" * 1000 + b'","e":"AQAB"}]}',
    ],
)
async def test_garbage_is_no_key(
    mock_clock: MockClock, world: World, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    world.server.answer = answer
    assert await world.status(world.token()) in {401, 503}
    world.server.answer = None
    world.pass_time()
    assert await world.status(world.token()) == 200


@pytest.mark.parametrize(
    "status", ["404 Not Found", "500 Internal Server Error", "204 No Content", "206 Partial"]
)
async def test_only_200_brings_keys(world: World, status: str) -> None:
    world.server.status = status
    assert await world.status(world.token()) == 503


async def test_known_keys_count_while_the_issuer_is_down_but_not_for_ever(
    mock_clock: MockClock, world: World
) -> None:
    assert await world.status(world.token()) == 200
    world.server.manner = "hangs up"
    world.pass_time(jwks.FRESH_SECONDS)
    assert await world.status(world.token()) == 200
    assert world.fetches == 2
    assert await world.status(world.token("k9")) == 503
    world.pass_time(jwks.KEPT_SECONDS)
    assert await world.status(world.token()) == 503


async def test_an_issuer_whose_port_is_closed_is_503(world: World) -> None:
    with trio.socket.socket() as nobody:
        await nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        world.rest.configure(auth={"jwks_url": f"http://127.0.0.1:{port}/"})
        assert await world.status(world.token()) == 503
    # Another URL is another issuer: what was known of the former says nothing about it.
    world.rest.configure(auth={"jwks_url": world.server.url})
    assert await world.status(world.token()) == 200


@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
async def test_a_fetch_from_a_url_that_a_reload_replaces_counts_for_nothing(
    world: World, status: str
) -> None:
    world.server.manner, world.server.status = "silent", status
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append(await world.status(world.token()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await world.server.came.wait()
        world.server.status = "200 OK"
        world.rest.configure(auth={"jwks_url": world.server.url + "2"})
        nursery.start_soon(ask)
        await wait_all_tasks_blocked(0.01)
        world.server.release.set()
    assert statuses == [200, 200]
    assert world.fetches == 2
    assert world.server.requests[1].startswith(b"GET /keys?v=12 HTTP/1.1\r\n")


async def test_a_reload_that_takes_the_issuer_away_ends_the_wait_for_its_keys(world: World) -> None:
    world.server.manner = "silent"
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append(await world.status(world.token()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await world.server.came.wait()
        world.rest.configure(auth={"jwks_url": ""})
        world.server.release.set()
    assert statuses == [401]
    assert world.fetches == 1
    world.rest.configure(auth={"jwks_url": world.server.url})
    assert await world.status(world.token()) == 200


async def test_a_request_that_is_cancelled_does_not_cancel_the_fetch_that_others_wait_for(
    world: World,
) -> None:
    world.server.manner = "silent"
    with trio.CancelScope() as impatient:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.status, world.token())
            await world.server.came.wait()
            impatient.cancel()
    world.server.release.set()
    assert await world.status(world.token()) == 200
    assert world.fetches == 1


async def test_what_went_wrong_is_in_the_log_and_no_key_or_token_is(
    mock_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    token = world.token()
    world.server.status = "500 Oops"
    await world.status(token)
    output = caplog.text + "".join(capsys.readouterr())
    assert "could not be fetched" in output
    assert "answered with status 500" in output
    world.pass_time()
    world.server.status = "200 OK"
    await world.status(token)
    output = caplog.text + "".join(capsys.readouterr())
    assert token not in output
    assert jwk(key("EdDSA"), "k1")["x"] not in output


async def test_an_outside_users_token_is_not_renewed_here(world: World) -> None:
    status, body = await world.rest.ask_json("POST", "/api/auth/refresh", token=world.token(sub="admin"))
    assert (status, body) == (400, {"error": "A token of another issuer is renewed there"})
    assert (await world.rest.ask("POST", "/api/auth/logout", token=world.token())).status_code == 200
    assert await world.status(world.token()) == 401
