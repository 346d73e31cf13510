"""Login, refresh, logout and credentials over REST."""

from __future__ import annotations

import json
import logging
import threading

import pytest
import trio
from msgspec import structs
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.auth.tokens import MAX_TIME
from heliosd.clock import rfc3339
from heliosd.errors import Invalid, StoreFull, Unauthenticated
from heliosd.store.changes import TokenRevoked
from heliosd.web.rest import password_check, pipeline
from heliosd.web.rest.password_check import HASHES_AT_ONCE, QUEUE_LENGTH
from tests.support.deadlines import SECONDS
from tests.support.front_server import becomes
from tests.support.passwords import cheap_hash
from tests.support.rest_server import PASSWORD, PASSWORD_HASH, START, Rest, now
from tests.support.rest_shapes import SESSION, check

GOOD = {"username": "viewer", "password": PASSWORD}
LOGIN = "/api/auth/login"
LOGINS = 100
"""More than can be hashed or wait."""


@pytest.fixture
async def rest() -> Rest:
    """On the real clock: passwords are hashed in threads."""
    return Rest()


@pytest.fixture
async def still() -> Rest:
    """On a clock that jumps."""
    return Rest()


# -- login -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LOGIN, "/api/v1/auth/login"])
async def test_a_login_answers_with_a_token_that_works(rest: Rest, path: str) -> None:
    status, session = await rest.ask_json("POST", path, GOOD, user=None)
    assert status == 200
    check(SESSION, session)
    assert (session["user_id"], session["roles"]) == ("viewer", ["viewer"])
    assert rfc3339(now().wall + 28_780) <= session["expires_at"] <= rfc3339(now().wall + 28_801)
    status, me = await rest.ask_json("GET", "/api/auth/me", token=session["token"])
    assert (status, me["user_id"], me["expires_at"]) == (200, "viewer", session["expires_at"])
    assert me["permissions"] == ["cluster:read", "cluster:watch"]


async def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(rest: Rest) -> None:
    wrong_name = await rest.ask("POST", LOGIN, {**GOOD, "username": "mallory"}, user=None)
    wrong_password = await rest.ask("POST", LOGIN, {**GOOD, "password": "guess"}, user=None)
    assert wrong_name.status_code == wrong_password.status_code == 401
    assert (
        await wrong_name.get_data() == await wrong_password.get_data() == b'{"error":"Invalid credentials"}\n'
    )
    for answer in (wrong_name, wrong_password):
        del answer.headers["X-Request-Id"]  # a random one, not of the request's making
    assert list(wrong_name.headers) == list(wrong_password.headers)


async def test_a_long_password_is_refused_before_it_costs_a_hash(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest.access, "check_password", None)
    status, body = await rest.ask_json("POST", LOGIN, {**GOOD, "password": "x" * 1025}, user=None)
    assert (status, body["field"]) == (400, "password")
    for size in (4096, 1_000_000, 2_000_000):
        status, body = await rest.ask_json("POST", LOGIN, {**GOOD, "password": "x" * size}, user=None)
        assert (status, body) == (413, {"error": "The body is larger than 4 KiB"})


async def test_guessing_is_429_for_that_address_and_name_only(rest: Rest) -> None:
    wrong = {**GOOD, "password": "guess"}
    for _ in range(10):
        assert (await rest.ask("POST", LOGIN, wrong, user=None)).status_code == 401
    late = await rest.ask("POST", LOGIN, GOOD, user=None)
    assert (late.status_code, await late.get_json()) == (429, {"error": "Too many failed logins"})
    assert 1 <= int(late.headers["Retry-After"]) <= 60
    forwarded = {"X-Forwarded-For": "10.9.9.9", "Forwarded": "for=10.9.9.9", "X-Real-IP": "10.9.9.9"}
    assert (await rest.ask("POST", LOGIN, GOOD, user=None, headers=forwarded)).status_code == 429
    assert (await rest.ask("POST", LOGIN, GOOD, user=None, address="10.0.0.1")).status_code == 200
    assert (await rest.ask("POST", LOGIN, {**GOOD, "username": "admin"}, user=None)).status_code == 200


async def test_an_address_is_the_same_in_both_ways_to_write_it(rest: Rest) -> None:
    wrong = {**GOOD, "password": "guess"}
    addresses = ["1.2.3.4", "::ffff:1.2.3.4", "::ffff:102:304"]
    for attempt in range(10):
        answer = await rest.ask("POST", LOGIN, wrong, user=None, address=addresses[attempt % 3])
        assert answer.status_code == 401
    for address in addresses:
        assert (await rest.ask("POST", LOGIN, GOOD, user=None, address=address)).status_code == 429
    assert (await rest.ask("POST", LOGIN, GOOD, user=None, address="1.2.3.5")).status_code == 200


async def test_ten_times_as_many_failures_of_one_address_are_429_for_every_name(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        rest.access, "check_password", lambda _, password: PASSWORD_HASH if password == PASSWORD else None
    )
    for number in range(100):
        wrong = {"username": f"guess-{number}", "password": "guess"}
        assert (await rest.ask("POST", LOGIN, wrong, user=None, address="10.1.1.1")).status_code == 401
    late = await rest.ask("POST", LOGIN, GOOD, user=None, address="10.1.1.1")
    assert late.status_code == 429
    assert 1 <= int(late.headers["Retry-After"]) <= 60
    assert (await rest.ask("POST", LOGIN, GOOD, user=None, address="10.1.1.2")).status_code == 200


async def test_right_passwords_are_never_throttled_one_after_another_or_at_once(rest: Rest) -> None:
    for _ in range(30):
        assert (await rest.ask("POST", LOGIN, GOOD, user=None)).status_code == 200
    assert await at_once(rest, [GOOD] * 30) == [200] * 30


async def test_of_wrong_passwords_at_once_no_more_are_tried_than_one_after_another(rest: Rest) -> None:
    statuses = await at_once(rest, [{**GOOD, "password": "guess"}] * 30)
    assert (statuses.count(401), statuses.count(429)) == (10, 20)


async def at_once(rest: Rest, bodies: list[dict[str, str]]) -> list[int]:
    """The statuses of logins from one address that come together."""
    statuses = []

    async def log_in(body: dict[str, str]) -> None:
        statuses.append((await rest.ask("POST", LOGIN, body, user=None)).status_code)

    async with trio.open_nursery() as nursery:
        for body in bodies:
            nursery.start_soon(log_in, body)
    return statuses


async def test_an_address_without_failures_is_next_while_others_guess(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, calls = threading.Semaphore(0), []

    def slow(name: str, password: str) -> str | None:
        calls.append(name)
        assert gate.acquire(timeout=20)
        return PASSWORD_HASH if name == "viewer" else None

    monkeypatch.setattr(rest.access, "check_password", slow)
    guesses = HASHES_AT_ONCE + QUEUE_LENGTH
    done: list[str] = []

    async def log_in(name: str, address: str) -> None:
        await rest.ask("POST", LOGIN, {"username": name, "password": PASSWORD}, user=None, address=address)
        done.append(name)

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(guesses):  # every address fails once
                nursery.start_soon(log_in, f"guess-{number}", f"10.0.1.{number}")
            gate.release(guesses)
        assert len(done) == guesses
        async with trio.open_nursery() as nursery:
            for number in range(guesses):  # and fills the queue again
                nursery.start_soon(log_in, f"guess-{number}", f"10.0.1.{number}")
            await becomes(lambda: len(calls) == guesses + HASHES_AT_ONCE)
            await wait_all_tasks_blocked()
            nursery.start_soon(log_in, "viewer", "10.9.9.9")
            await wait_all_tasks_blocked()
            gate.release(1)
            await becomes(lambda: len(calls) == guesses + HASHES_AT_ONCE + 1)
            gate.release(guesses)
    assert calls[guesses + HASHES_AT_ONCE] == "viewer"


async def test_an_address_that_was_refused_is_before_those_that_come_after_it(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, calls = threading.Semaphore(0), []

    def slow(name: str, password: str) -> str | None:
        calls.append(name)
        return PASSWORD_HASH if gate.acquire(timeout=20) else None

    monkeypatch.setattr(rest.access, "check_password", slow)
    statuses: list[int] = []

    async def log_in(name: str, address: str) -> None:
        body = {"username": name, "password": PASSWORD}
        statuses.append((await rest.ask("POST", LOGIN, body, user=None, address=address)).status_code)

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(HASHES_AT_ONCE + QUEUE_LENGTH):
                nursery.start_soon(log_in, f"early-{number}", f"10.0.4.{number}")
            await wait_all_tasks_blocked()
            await log_in("viewer", "10.9.9.9")
            assert statuses == [503]
            gate.release(QUEUE_LENGTH)
            await becomes(lambda: len(statuses) == 1 + QUEUE_LENGTH)
            for number in range(QUEUE_LENGTH):
                nursery.start_soon(log_in, f"late-{number}", f"10.0.5.{number}")
            await wait_all_tasks_blocked()
            nursery.start_soon(log_in, "viewer", "10.9.9.9")
            await wait_all_tasks_blocked()
            gate.release(HASHES_AT_ONCE + QUEUE_LENGTH)
    assert "viewer" in calls[: HASHES_AT_ONCE + QUEUE_LENGTH + 3]
    assert statuses.count(503) == 2  # the one above, and the last of those that came late


async def test_a_login_that_waits_too_long_for_its_turn_is_refused(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(password_check, "QUEUE_SECONDS", 0.2)
    gate = threading.Event()
    monkeypatch.setattr(rest.access, "check_password", lambda *_: gate.wait(20) and PASSWORD_HASH)
    statuses: list[int] = []

    async def log_in(number: int) -> None:
        answer = await rest.ask("POST", LOGIN, GOOD, user=None, address=f"10.0.3.{number}")
        statuses.append(answer.status_code)
        if len(statuses) == 3:
            gate.set()

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(HASHES_AT_ONCE + 3):
                nursery.start_soon(log_in, number)
    assert statuses == [503] * 3 + [200] * HASHES_AT_ONCE


async def test_a_login_whose_hash_takes_too_long_is_503_and_the_next_one_needs_none(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(password_check, "QUEUE_SECONDS", 0.1)
    monkeypatch.setattr(password_check, "HASH_SECONDS", 0.1)
    monkeypatch.setattr(pipeline, "WRITE_SECONDS", 0.05)  # nothing is written, so its outcome is not unknown
    gate, check_password = threading.Event(), rest.access.check_password
    monkeypatch.setattr(
        rest.access, "check_password", lambda *given: gate.wait(20) and check_password(*given)
    )
    with trio.fail_after(SECONDS):
        answer = await rest.ask("POST", LOGIN, GOOD, user=None)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        gate.set()
        await becomes(lambda: rest.access.recognized(GOOD["username"], GOOD["password"]) is not None)
        assert (await rest.ask("POST", LOGIN, GOOD, user=None)).status_code == 200


async def test_a_login_that_is_abandoned_gives_its_place_to_others(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Semaphore(0)
    monkeypatch.setattr(rest.access, "check_password", lambda *_: gate.acquire(timeout=20) and PASSWORD_HASH)

    async def log_in(number: int) -> None:
        answer = await rest.ask("POST", LOGIN, GOOD, user=None, address=f"10.0.2.{number}")
        assert answer.status_code == 200

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(HASHES_AT_ONCE):
                nursery.start_soon(log_in, number)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as leaving:
                for number in range(QUEUE_LENGTH):
                    leaving.start_soon(log_in, 100 + number)
                await wait_all_tasks_blocked()
                leaving.cancel_scope.cancel()
            for number in range(QUEUE_LENGTH):
                nursery.start_soon(log_in, number)
            await wait_all_tasks_blocked()
            gate.release(HASHES_AT_ONCE + QUEUE_LENGTH)


async def test_two_passwords_are_hashed_at_once_a_few_wait_and_the_rest_are_refused(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, pair = threading.Event(), threading.Barrier(HASHES_AT_ONCE)
    lock, most, running = threading.Lock(), 0, 0

    def slow(name: str, password: str) -> str:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        assert gate.wait(20)
        pair.wait(20)  # returns only if that many run side by side
        with lock:
            running -= 1
        return PASSWORD_HASH

    monkeypatch.setattr(rest.access, "check_password", slow)
    statuses: list[int] = []

    async def log_in(number: int) -> None:
        answer = await rest.ask("POST", LOGIN, GOOD, user=None, address=f"10.0.0.{number}")
        statuses.append(answer.status_code)
        if answer.status_code == 503:
            assert answer.headers["Retry-After"] == "1"
        if len(statuses) == LOGINS - HASHES_AT_ONCE - QUEUE_LENGTH:
            gate.set()  # all that are refused were, before any hash was done

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(LOGINS):
                nursery.start_soon(log_in, number)
    assert statuses.count(503) == LOGINS - HASHES_AT_ONCE - QUEUE_LENGTH
    assert statuses.count(200) == HASHES_AT_ONCE + QUEUE_LENGTH
    assert most == HASHES_AT_ONCE


@pytest.mark.parametrize("check", ["check_password", "recognized"])
async def test_a_login_that_a_reload_of_the_password_overtakes_gets_no_token(
    rest: Rest, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    if check == "recognized":
        assert (await rest.ask("POST", LOGIN, GOOD, user=None)).status_code == 200
    asked = getattr(rest.access, check)

    def overtaken(name: str, password: str) -> object:
        outcome = asked(name, password)
        assert outcome
        users = rest.settings.current.auth.users
        changed = cheap_hash("another")
        rest.configure(auth={"users": tuple(structs.replace(user, password_hash=changed) for user in users)})
        return outcome

    monkeypatch.setattr(rest.access, check, overtaken)
    status, body = await rest.ask_json("POST", LOGIN, GOOD, user=None)
    assert (status, body) == (401, {"error": "Invalid credentials"})
    monkeypatch.undo()
    new = {**GOOD, "password": "another"}
    assert (await rest.ask("POST", LOGIN, new, user=None)).status_code == 200


async def test_a_page_of_a_foreign_origin_cannot_log_in(rest: Rest) -> None:
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        answer = await rest.ask("POST", LOGIN, GOOD, user=None, headers={"Origin": origin})
        assert answer.status_code == 403
        assert "not allowed" in (await answer.get_json())["error"]
    own = await rest.ask("POST", LOGIN, GOOD, user=None, headers={"Origin": "http://localhost"})
    assert own.status_code == 200


async def test_no_secret_reaches_a_log_line_or_another_answer(
    rest: Rest, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "canary-5f3a"
    _, session = await rest.ask_json("POST", LOGIN, GOOD, user=None)
    answers = [
        await rest.ask_json("POST", LOGIN, {"username": "viewer", "password": canary}, user=None),
        await rest.ask_json("POST", LOGIN, {"username": "viewer", "password": canary, "x": 1}, user=None),
        await rest.ask_json("GET", "/api/cluster/status", token=f"{canary}.{canary}.{canary}"),
        await rest.ask_json("GET", "/api/auth/me", token=session["token"]),
    ]
    rest.lone.trouble = RuntimeError("bug")
    answers.append(await rest.ask_json("POST", "/api/cluster/snapshot"))
    output = json.dumps(answers) + caplog.text + "".join(capsys.readouterr())
    assert canary not in output
    assert session["token"] not in output


# -- refresh, me -----------------------------------------------------------------------------------------------


async def test_refresh_gives_a_new_token_and_leaves_the_old_one(
    autojump_clock: MockClock, still: Rest
) -> None:
    old = still.token("viewer", ttl=60)
    await trio.sleep(30)
    status, session = await still.ask_json("POST", "/api/auth/refresh", token=old)
    assert status == 200
    check(SESSION, session)
    assert session["token"] != old
    assert session["expires_at"] == rfc3339(START + 30 + 28_800)
    for token in (old, session["token"]):
        assert (await still.ask("GET", "/api/auth/me", token=token)).status_code == 200


async def test_an_expired_token_holds_nowhere_and_cannot_be_refreshed(
    autojump_clock: MockClock, still: Rest
) -> None:
    token = still.token("viewer", ttl=60)
    await trio.sleep(60)
    for method, path in (("POST", "/api/auth/refresh"), ("GET", "/api/auth/me")):
        status, body = await still.ask_json(method, path, token=token)
        assert (status, body) == (401, {"error": "Invalid token"})


async def test_rights_are_those_of_the_config_in_force(autojump_clock: MockClock, still: Rest) -> None:
    token = still.token("viewer")
    still.configure(auth={"roles": {"viewer": frozenset({"cluster:watch"})}})
    status, body = await still.ask_json("GET", "/api/cluster/status", token=token)
    assert (status, body) == (403, {"error": "Permission required: cluster:read"})
    still.configure(auth={"users": still.settings.current.auth.users[:1]})
    assert (await still.ask("GET", "/api/auth/me", token=token)).status_code == 401


# -- logout ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/auth/logout", "/api/v1/auth/logout"])
async def test_after_logout_the_token_is_dead_on_disk_and_for_open_sockets(
    autojump_clock: MockClock, still: Rest, path: str
) -> None:
    token = still.token("viewer")
    who = still.access.identify(token, now().wall)
    assert await still.ask_json("POST", path, token=token) == (200, {"ok": True})
    assert still.saved == [TokenRevoked(who.jti, who.expires_at)]
    assert still.roster.revoked == [who.jti]
    status, body = await still.ask_json("GET", "/api/auth/me", token=token)
    assert (status, body) == (401, {"error": "Invalid token"})
    assert (await still.ask("GET", "/api/auth/me", token=still.token("viewer"))).status_code == 200


async def test_only_an_admin_revokes_anothers_token(autojump_clock: MockClock, still: Rest) -> None:
    victim = still.token("viewer")
    jti = still.access.identify(victim, now().wall).jti
    for role in ("viewer", "operator"):
        status, body = await still.ask_json("POST", "/api/auth/logout", {"jti": jti}, user=role)
        assert (status, body) == (403, {"error": "Permission required: admin:*"})
    assert (await still.ask("GET", "/api/auth/me", token=victim)).status_code == 200
    admin = still.token("admin")
    assert await still.ask_json("POST", "/api/auth/logout", {"jti": jti}, token=admin) == (200, {"ok": True})
    assert (await still.ask("GET", "/api/auth/me", token=victim)).status_code == 401
    assert (await still.ask("GET", "/api/auth/me", token=admin)).status_code == 200
    assert still.saved == [TokenRevoked(jti, MAX_TIME)]


async def test_ones_own_jti_may_be_named(autojump_clock: MockClock, still: Rest) -> None:
    token = still.token("viewer")
    who = still.access.identify(token, now().wall)
    assert (await still.ask_json("POST", "/api/auth/logout", {"jti": who.jti}, token=token))[0] == 200
    assert still.saved == [TokenRevoked(who.jti, who.expires_at)]


async def test_a_logout_that_the_disk_refuses_says_so_and_holds_in_memory(
    autojump_clock: MockClock, still: Rest
) -> None:
    token = still.token("viewer")
    still.disk_trouble = StoreFull("disk full")
    status, body = await still.ask_json("POST", "/api/auth/logout", token=token)
    assert (status, body) == (507, {"error": "The change could not be stored"})
    assert (await still.ask("GET", "/api/auth/me", token=token)).status_code == 401


async def stored_once_the_disk_takes_it(rest: Rest, revocation: TokenRevoked) -> None:
    """The disk takes it after a minute."""
    await trio.sleep(60)
    assert rest.saved == []
    rest.disk_trouble = None
    with trio.fail_after(60):
        await becomes(lambda: rest.saved == [revocation])


async def test_a_logout_that_the_disk_refused_is_shared_and_stored_once_the_disk_takes_it(
    autojump_clock: MockClock, still: Rest
) -> None:
    token = still.token("viewer")
    who = still.access.identify(token, now().wall)
    still.disk_trouble = StoreFull("disk full")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(still.revoked_tokens.run)
        assert (await still.ask("POST", "/api/auth/logout", token=token)).status_code == 507
        assert still.lone.shared_revocations == {who.jti: who.expires_at}
        await stored_once_the_disk_takes_it(still, TokenRevoked(who.jti, who.expires_at))
        nursery.cancel_scope.cancel()


async def test_what_another_daemon_revoked_is_stored_once_and_once_the_disk_takes_it(
    autojump_clock: MockClock, still: Rest
) -> None:
    token = still.token("viewer")
    who = still.access.identify(token, now().wall)
    still.disk_trouble = StoreFull("disk full")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(still.revoked_tokens.run)
        still.revoked_tokens.hear(who.jti, who.expires_at)
        assert still.roster.revoked == [who.jti]
        assert (await still.ask("GET", "/api/auth/me", token=token)).status_code == 401
        await stored_once_the_disk_takes_it(still, TokenRevoked(who.jti, who.expires_at))
        still.revoked_tokens.hear(who.jti, who.expires_at)
        await wait_all_tasks_blocked()
        assert len(still.saved) == 1
        nursery.cancel_scope.cancel()


async def test_a_browser_that_leaves_after_its_logout_has_logged_out(
    autojump_clock: MockClock, still: Rest
) -> None:
    token = still.token("viewer")
    with trio.fail_after(60):
        await still.ask_and_leave("POST", "/api/auth/logout", token)
    assert len(still.saved) == 1


# -- credentials -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "query", "subprotocols"),
    [
        (["Bearer ONE", "Bearer OTHER"], [], []),
        (["Bearer ONE"], ["OTHER"], []),
        ([], ["ONE", "OTHER"], []),
        (["Bearer ONE"], [], ["bearer.OTHER"]),
    ],
)
async def test_two_different_tokens_in_one_request_are_invalid(
    autojump_clock: MockClock,
    still: Rest,
    authorization: list[str],
    query: list[str],
    subprotocols: list[str],
) -> None:
    one, other = still.token("viewer"), still.token("admin")

    def filled(texts: list[str]) -> list[str]:
        return [text.replace("ONE", one).replace("OTHER", other) for text in texts]

    credentials = still.authenticator.read(
        filled(authorization), {"token": filled(query)}, filled(subprotocols)
    )
    with pytest.raises(Invalid, match="Two different tokens"):
        await still.authenticator.authenticate(credentials)


async def test_the_same_token_twice_is_one_token(autojump_clock: MockClock, still: Rest) -> None:
    token = still.token("viewer")
    credentials = still.authenticator.read(
        [f"bearer  {token} "], {"token": [token]}, ["heliosd.v1", f"bearer.{token}"]
    )
    assert (await still.authenticator.authenticate(credentials)).user_id == "viewer"


@pytest.mark.parametrize("value", [None, "", "Basic YTpi", "Bearer", "Bearer ", "Bearerx y", "Token x"])
async def test_without_a_bearer_token_authentication_is_required(
    autojump_clock: MockClock, still: Rest, value: str | None
) -> None:
    credentials = still.authenticator.read([] if value is None else [value])
    with pytest.raises(Unauthenticated, match="Authentication required"):
        await still.authenticator.authenticate(credentials)


async def test_rest_takes_no_token_from_the_url(autojump_clock: MockClock, still: Rest) -> None:
    status, body = await still.ask_json("GET", f"/api/cluster/status?token={still.token()}", user=None)
    assert (status, body) == (401, {"error": "Authentication required"})


async def test_tokens_are_found_wherever_they_may_stand(autojump_clock: MockClock, still: Rest) -> None:
    read = still.authenticator.read(["Bearer a"], {"token": ["b"]}, ["bearer.c", "heliosd.v1", "Bearer.d"])
    assert read.tokens == {"a", "b", "c"}
