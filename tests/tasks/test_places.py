"""How many places are taken, of which `max_clients` and `max_clients_per_user` are limits."""

from __future__ import annotations

import random

import pytest
from msgspec import structs
from trio.testing import MockClock

from heliosd.auth.identity import Identity
from heliosd.hub.client import HubClient
from tests.support.hub_harness import House, Socket, open_house

ACTS = ("admit", "admit", "join", "join", "join at once", "leave", "give up", "never begin")


@pytest.mark.parametrize("seed", range(20))
async def test_a_users_places_are_those_of_the_clients_that_have_joined_or_will(
    autojump_clock: MockClock, seed: int
) -> None:
    rng = random.Random(seed)
    async with open_house() as house:
        connections = house.hub.connections
        users = [structs.replace(house.identity("jti"), user_id=name) for name in ("admin", "eva", "abe")]
        admitted: list[HubClient] = []
        joined: list[HubClient] = []
        for _ in range(200):
            match rng.choice(ACTS):
                case "admit":
                    admitted.append(_client(house, rng.choice(users), rng))
                    connections.admit(admitted[-1])
                case "join" if admitted:
                    joined.append(admitted.pop(rng.randrange(len(admitted))))
                    connections.add(joined[-1])
                case "join at once":
                    joined.append(_client(house, rng.choice(users), rng))
                    connections.add(joined[-1])
                case "leave" if joined:
                    connections.remove(joined.pop(rng.randrange(len(joined))))
                case "give up" if admitted:
                    gone = admitted.pop(rng.randrange(len(admitted)))
                    connections.remove(gone)
                    connections.remove(gone)
                    del gone
                case "never begin":
                    # A response's body that is dropped: nobody gives its place back.
                    admitted = [client for client in admitted if client.stream_kind == "websocket"]
            there = [*admitted, *joined]
            assert connections.places == len(there)
            for user in users:
                mine = sum(client.identity.user_id == user.user_id for client in there)
                assert connections.places_of(user) == mine
        house.nursery.cancel_scope.cancel()


def _client(house: House, identity: Identity, rng: random.Random) -> HubClient:
    serial = next(house.serials)
    return HubClient(
        serial=serial,
        id=f"c{serial}",
        identity=identity,
        address="127.0.0.1:1",
        since=0.0,
        transport=Socket(),
        send_buffer=8,
        stream_kind=rng.choice(("websocket", "websocket", "sse")),
    )
