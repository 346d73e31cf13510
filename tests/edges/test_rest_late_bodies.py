"""What a request may is decided when its whole body has come, however late that is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import trio
from msgspec import structs
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.web.rest.body_reader import BODY_SECONDS
from heliosd.web.rest.route import Route
from heliosd.web.rest.route_table import ROUTES
from tests.support.passwords import cheap_hash
from tests.support.rest_server import PASSWORD, Rest, now

WRITES = [route for route in ROUTES if route.method != "GET" and route.paths[0] != "/api/auth/login"]
REFRESH = "/api/auth/refresh"

writes = pytest.mark.parametrize("route", WRITES, ids=lambda route: f"{route.method} {route.paths[0]}")


@pytest.fixture
async def rest() -> Rest:
    return Rest()


async def status_after(
    rest: Rest, method: str, path: str, token: str, happens: Callable[[], object], seconds: float = 1.0
) -> int:
    """The status of a request whose body ends `seconds` after its start was accepted and `happens` was called."""
    statuses: list[int] = []
    ends = trio.Event()

    async def send() -> None:
        statuses.append(await rest.send_slowly(method, path, token, b"{}", ends))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert not statuses, "the token was accepted, and the body is waited for"
        happens()
        await trio.sleep(seconds)
        ends.set()
    return statuses[0]


def revoke(rest: Rest, token: str) -> None:
    identity = rest.access.identify(token, now().wall)
    rest.access.revoke(identity.jti, identity.expires_at, now())


def change_admin(rest: Rest, **fields: object) -> None:
    users = rest.settings.current.auth.users
    rest.configure(
        auth={
            "users": tuple(
                structs.replace(user, **fields) if user.name == "admin" else user for user in users
            )
        }
    )


@writes
async def test_a_token_that_is_revoked_while_the_body_is_awaited_is_refused(
    autojump_clock: MockClock, rest: Rest, route: Route
) -> None:
    token, before = rest.token(), rest.lone.index
    path = route.paths[0].replace("{name}", "x")
    assert await status_after(rest, route.method, path, token, lambda: revoke(rest, token)) == 401
    assert rest.lone.index == before, "nothing was written"
    assert not rest.saved


@pytest.mark.parametrize("same_word", [True, False])
async def test_a_token_is_not_renewed_over_a_change_of_the_password(
    autojump_clock: MockClock, rest: Rest, same_word: bool
) -> None:
    changed = cheap_hash(PASSWORD if same_word else "another")
    status = await status_after(
        rest, "POST", REFRESH, rest.token(), lambda: change_admin(rest, password_hash=changed)
    )
    assert status == 401


async def test_a_write_needs_its_right_when_the_body_has_come(autojump_clock: MockClock, rest: Rest) -> None:
    for path in ("/api/cluster/uptime/reset", "/api/cluster/snapshot"):
        before = rest.lone.index
        change_admin(rest, roles=("admin",))
        take_away = partial(change_admin, rest, roles=("writer",))
        assert await status_after(rest, "POST", path, rest.token(), take_away) == 403
        assert rest.lone.index == before


async def test_a_token_that_ends_while_the_body_is_awaited_is_refused(
    autojump_clock: MockClock, rest: Rest
) -> None:
    token = rest.token(ttl=5)
    assert await status_after(rest, "POST", REFRESH, token, lambda: None, 6) == 401


async def test_a_late_body_is_answered_while_its_token_and_right_hold(
    autojump_clock: MockClock, rest: Rest
) -> None:
    late = BODY_SECONDS - 1
    assert await status_after(rest, "POST", REFRESH, rest.token(), lambda: None, late) == 200
    reset = "/api/cluster/uptime/reset"
    assert await status_after(rest, "POST", reset, rest.token(), lambda: None, late) == 200
