"""Rights on an open connection: the end of a token, a newer one, and what a reload takes away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.auth.signing_keys import KeyRing, SigningKey
from heliosd.clock import rfc3339
from heliosd.config.model import UserConfig
from heliosd.hub.client import HubClient
from heliosd.hub.inbox import Tick
from heliosd.protocol.client_commands import Authenticate
from heliosd.protocol.close_codes import CloseReason
from tests.support.hub_harness import ADDED, ELECTED, House, Socket, Turns, now, open_house
from tests.support.passwords import cheap_hash

OTHER = UserConfig(name="other", password_hash=cheap_hash("pear"), roles=("viewer",))


@pytest.fixture(name="house")
async def hub_harness() -> AsyncIterator[House]:
    async with open_house() as house:
        yield house


async def come(house: House, ttl: float) -> tuple[HubClient, Socket]:
    """A client with a token for `ttl` seconds that has had its status."""
    identity = house.access.issue("admin", now().wall, ttl).identity
    client, socket = house.join(identity=identity)
    await wait_all_tasks_blocked()
    return client, socket


def present(house: House, client: HubClient, token: str) -> None:
    house.hub.sessions.execute(client, Authenticate("a1", token))


def newer(house: House, ttl: float = 3600, user: str = "admin") -> str:
    return house.access.issue(user, now().wall, ttl).token


async def reload(house: House, **auth: Any) -> None:
    current = house.settings.current
    house.settings.replace(replace(current, auth=replace(current.auth, **auth)))
    await wait_all_tasks_blocked()


def seqs(socket: Socket) -> list[int]:
    return [message["seq"] for message in socket.messages() if "seq" in message]


async def test_a_token_that_ends_while_its_client_joins_is_held_and_not_taken_for_revoked(
    autojump_clock: MockClock, house: House
) -> None:
    identity = house.access.issue("admin", now().wall, 0.5).identity
    await trio.sleep(1)
    client, socket = house.join(identity=identity)
    await wait_all_tasks_blocked()
    assert (client.held, client.close_reason) == (True, None)
    present(house, client, newer(house))
    await wait_all_tasks_blocked()
    assert socket.types()[-1] == "authenticated"
    await trio.sleep(60)
    assert client.close_reason is None


async def test_many_tokens_that_end_together_are_more_than_one_turn_and_so_is_a_reload(
    autojump_clock: MockClock, house: House
) -> None:
    """In the house a time slice ends at once."""
    sockets = [(await come(house, 300))[1] for _ in range(50)]
    turns = Turns("TokenExpiry.run")
    await trio.sleep(241)
    assert [socket.types()[-1] for socket in sockets] == ["token_expiring"] * 50
    assert turns.count > 50
    before = turns.count
    await reload(house, users=(OTHER,))
    assert [socket.close_code() for socket in sockets] == [4403] * 50
    assert turns.count > before + 50


# -- the end of a token ----------------------------------------------------------------------------------------


async def test_a_client_is_warned_sixty_seconds_before_the_end(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = await come(house, 300)
    await trio.sleep(239.5)
    assert socket.types() == ["status"]
    await trio.sleep(1)
    warning = socket.messages()[-1]
    assert warning["type"] == "token_expiring"
    assert warning["data"] == {"expires_at": rfc3339(client.identity.expires_at)}
    await trio.sleep(58)
    assert socket.types().count("token_expiring") == 1


@pytest.mark.parametrize(("life", "lead"), [(4, 2), (60, 30), (120, 60), (121, 60)])
async def test_the_warning_comes_at_half_of_a_short_life(
    autojump_clock: MockClock, house: House, life: int, lead: int
) -> None:
    _, socket = await come(house, life)
    await trio.sleep(life - lead - 0.5)
    assert socket.types() == ["status"]
    await trio.sleep(1)
    assert socket.types() == ["status", "token_expiring"]
    await trio.sleep(lead + 24)
    assert socket.types() == ["status", "token_expiring"]
    await trio.sleep(1)
    assert socket.close_code() == 4401


async def test_a_token_that_was_issued_behind_its_end_is_held_at_its_end_all_the_same(
    autojump_clock: MockClock, house: House
) -> None:
    issued = house.access.issue("admin", now().wall, 60).identity
    client, socket = house.join(identity=replace(issued, issued_at=issued.expires_at + 1e6))
    await trio.sleep(61)
    house.inbox.send_nowait(ADDED)
    await wait_all_tasks_blocked()
    assert (client.held, socket.types()) == (True, ["status", "token_expiring"])


async def test_with_less_left_than_that_the_warning_comes_at_once(
    autojump_clock: MockClock, house: House
) -> None:
    identity = house.access.issue("admin", now().wall, 100).identity
    await trio.sleep(70)
    _, socket = house.join(identity=identity)
    await wait_all_tasks_blocked()
    assert socket.types() == ["status", "token_expiring"]


async def test_from_the_end_events_wait_and_then_come_in_order_behind_the_answer(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = await come(house, 3)
    await house.publish(ELECTED)
    assert seqs(socket) == [1]
    await trio.sleep(4)
    before = socket.types()
    await house.publish(ADDED, ADDED, Tick.LATENCY, ADDED)
    assert socket.types() == before
    assert len(client.send_queue) >= 4
    token = newer(house)
    present(house, client, token)
    await wait_all_tasks_blocked()
    after = socket.messages()[len(before) :]
    assert after[0]["type"] == "authenticated"
    assert (after[0]["id"], after[0]["data"]) == ("a1", {"expires_at": rfc3339(client.identity.expires_at)})
    assert [message["seq"] for message in after if "seq" in message] == [2, 3, 4]
    await trio.sleep(200)
    await house.publish(ADDED)
    assert seqs(socket) == [1, 2, 3, 4, 5]
    assert socket.close_code() is None


async def test_answers_still_come_after_the_end(autojump_clock: MockClock, house: House) -> None:
    client, socket = await come(house, 3)
    await trio.sleep(4)
    present(house, client, "not.a.token")
    house.hub.connections.pong(client, b"x")
    await wait_all_tasks_blocked()
    assert socket.types()[-1] == "error"
    assert socket.pongs == [b"x"]


async def test_what_does_not_fit_while_it_waits_becomes_a_gap_that_names_it(
    autojump_clock: MockClock, house: House
) -> None:
    current = house.settings.current
    house.settings.replace(replace(current, websocket=replace(current.websocket, send_buffer=8)))
    client, socket = await come(house, 3)
    await trio.sleep(4)
    for _ in range(40):
        await house.publish(ADDED)
    assert client.dropped > 0
    assert len(client.send_queue) <= 8 + 2
    present(house, client, newer(house))
    await wait_all_tasks_blocked()
    types = socket.types()
    assert types.index("authenticated") < types.index("gap") < len(types) - 1 - types[::-1].index("status")
    gap = next(message for message in socket.messages() if message["type"] == "gap")
    missing = set(range(gap["data"]["from_seq"], gap["data"]["to_seq"] + 1))
    assert missing.isdisjoint(seqs(socket))
    assert missing | set(seqs(socket)) == set(range(1, 41))


async def test_without_a_newer_token_the_connection_ends_after_twenty_five_seconds(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = await come(house, 3)
    await trio.sleep(3 + 24)
    await house.publish(ELECTED)
    assert socket.close_code() is None
    await trio.sleep(2)
    assert socket.close_code() == 4401
    assert client.close_reason == CloseReason(4401, "token expired")
    assert seqs(socket) == []


async def test_the_grace_begins_with_each_tokens_end(autojump_clock: MockClock, house: House) -> None:
    client, socket = await come(house, 3)
    await trio.sleep(20)
    present(house, client, newer(house, 10))
    await trio.sleep(10 + 23)
    assert socket.close_code() is None
    await trio.sleep(3)
    assert socket.close_code() == 4401


async def test_a_token_brought_in_time_is_followed_by_no_interruption(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = await come(house, 100)
    await trio.sleep(60)
    present(house, client, newer(house, 1000))
    await trio.sleep(100)
    await house.publish(ELECTED)
    assert seqs(socket) == [1]
    assert socket.types().count("token_expiring") == 1
    await trio.sleep(850)
    assert socket.types().count("token_expiring") == 2


async def test_the_same_token_again_changes_nothing(autojump_clock: MockClock, house: House) -> None:
    issued = house.access.issue("admin", now().wall, 100)
    client, socket = house.join(identity=issued.identity)
    for _ in range(3):
        present(house, client, issued.token)
    await trio.sleep(90)
    await house.publish(ELECTED)
    assert seqs(socket) == [1]
    await trio.sleep(20)
    await house.publish(ADDED)
    assert seqs(socket) == [1]


async def test_a_shorter_token_shortens(autojump_clock: MockClock, house: House) -> None:
    client, socket = await come(house, 10_000)
    present(house, client, newer(house, 5))
    await trio.sleep(31)
    assert socket.close_code() == 4401


# -- auth ------------------------------------------------------------------------------------------------------


async def test_a_token_that_does_not_hold_is_an_error_and_changes_nothing(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = await come(house, 3600)
    expired = newer(house, 1)
    await trio.sleep(2)
    for token in ("", "x", "a.b.c", expired, newer(house) + "x"):
        present(house, client, token)
        error = socket.messages()[-1]
        assert (error["type"], error["id"], error["data"]["code"]) == ("error", "a1", "expired")
    await house.publish(ELECTED)
    assert seqs(socket) == [1]
    assert socket.close_code() is None


async def test_another_users_token_ends_the_connection(autojump_clock: MockClock, house: House) -> None:
    await reload(house, users=(*house.settings.current.auth.users, OTHER))
    client, socket = await come(house, 3600)
    present(house, client, newer(house, user="other"))
    assert socket.close_code() == 4403


async def test_a_token_without_the_right_to_watch_ends_the_connection(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = await come(house, 3600)
    current = house.settings.current
    (admin,) = current.auth.users
    # Not `replace` of the settings: nobody is asked again, so only `auth` finds out.
    house.settings.current = replace(current, auth=replace(current.auth, users=(replace(admin, roles=()),)))
    present(house, client, newer(house))
    assert socket.close_code() == 4403


# -- clocks ----------------------------------------------------------------------------------------------------


async def test_a_wall_clock_set_back_prolongs_nothing(autojump_clock: MockClock, house: House) -> None:
    issued = house.access.issue("admin", now().wall, 100)
    client, socket = house.join(identity=issued.identity)
    await trio.sleep(30)
    house.clock.leap = -86_400.0
    await trio.sleep(71)
    await house.publish(ELECTED)
    assert seqs(socket) == []
    # Nor does the same token open the connection once more.
    present(house, client, issued.token)
    assert socket.types()[-1] == "error"
    await trio.sleep(25)
    assert socket.close_code() == 4401


async def test_a_token_ends_on_an_open_connection_when_the_wall_clock_is_set_beyond_its_end(
    autojump_clock: MockClock, house: House
) -> None:
    issued = house.access.issue("admin", now().wall, 300)
    client, socket = house.join(identity=issued.identity)
    _, other = await come(house, 200_000)
    await trio.sleep(10)
    house.clock.leap = 86_400.0
    await trio.sleep(2)
    await house.publish(ELECTED)
    assert (seqs(socket), seqs(other)) == ([], [1])
    house.clock.leap = 0.0
    await trio.sleep(2)
    present(house, client, issued.token)
    assert socket.types()[-1] == "error"
    await trio.sleep(25)
    assert (socket.close_code(), other.close_code()) == (4401, None)


# -- a reload --------------------------------------------------------------------------------------------------


async def test_a_reload_that_takes_nothing_away_leaves_connections_alone(
    autojump_clock: MockClock, house: House
) -> None:
    _, socket = await come(house, 3600)
    await reload(house)
    await house.publish(ELECTED)
    assert seqs(socket) == [1]


async def test_a_user_with_fewer_rights_who_may_still_watch_stays(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = await come(house, 3600)
    (admin,) = house.settings.current.auth.users
    await reload(house, users=(replace(admin, roles=("viewer",)),))
    assert client.identity.permissions == {"cluster:watch", "cluster:read"}
    await house.publish(ELECTED)
    assert seqs(socket) == [1]


async def test_a_role_or_a_user_that_is_gone_ends_the_connection_at_once(
    autojump_clock: MockClock, house: House
) -> None:
    (admin,) = house.settings.current.auth.users
    for users in ((replace(admin, roles=()),), (OTHER,)):
        await reload(house, users=(admin,))
        _, socket = await come(house, 3600)
        await reload(house, users=users)
        assert socket.close_code() == 4403


async def test_a_changed_password_ends_the_connections_of_its_user_at_once(
    autojump_clock: MockClock, house: House
) -> None:
    (admin,) = house.settings.current.auth.users
    _, socket = await come(house, 3600)
    await reload(house, users=(replace(admin, password_hash=cheap_hash("plum")),))
    assert socket.close_code() == 4401


async def test_a_key_that_was_taken_away_ends_the_connections_that_came_with_it(
    autojump_clock: MockClock, house: House
) -> None:
    old, new = house.access.keys.signer, SigningKey(bytes(range(1, 33)))
    _, first = await come(house, 3600)
    house.access.keys = KeyRing(new, old)
    await reload(house)
    _, second = await come(house, 3600)
    house.access.keys = KeyRing(new)
    await reload(house)
    assert (first.close_code(), second.close_code()) == (4401, None)


async def test_an_expired_client_is_asked_again_on_a_reload_and_keeps_its_grace(
    autojump_clock: MockClock, house: House
) -> None:
    (admin,) = house.settings.current.auth.users
    client, socket = await come(house, 3)
    await trio.sleep(10)
    await reload(house)
    assert socket.close_code() is None
    present(house, client, newer(house))
    assert socket.types()[-1] == "authenticated"
    _, late = await come(house, 3)
    await trio.sleep(10)
    await reload(house, users=(replace(admin, roles=()),))
    assert late.close_code() == 4403


async def test_a_logout_ends_the_connections_of_that_token_alone(
    autojump_clock: MockClock, house: House
) -> None:
    client, one = await come(house, 3600)
    _, other = await come(house, 3600)
    house.hub.connections.token_revoked(client.identity.jti)
    assert (one.close_code(), other.close_code()) == (4401, None)


# -- memory ----------------------------------------------------------------------------------------------------


async def test_a_client_that_has_left_is_not_kept_until_its_tokens_end(
    autojump_clock: MockClock, house: House
) -> None:
    for _ in range(500):
        client, _ = house.join()
        house.hub.sessions.leave(client)
    assert len(house.hub.token_expiry) < 100


async def test_newer_tokens_without_end_are_one_thing_to_remember(
    autojump_clock: MockClock, house: House
) -> None:
    client, _ = await come(house, 3600)
    for _ in range(500):
        house.hub.token_expiry.watch(client)
    assert len(house.hub.token_expiry) < 100
