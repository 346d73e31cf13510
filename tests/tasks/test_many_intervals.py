"""5,000 clients that want some values no more often than now and then: what one of them costs does not grow with
their number, and a broadcast to all of them leaves the loop to others.

Times are CPU seconds of this thread, so that a busy machine does not count, and medians of some rounds: what else
runs in the same core slows this thread by half for some milliseconds.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import thread_time
from unittest.mock import patch

import pytest
import trio

from heliosd.daemon import garbage
from heliosd.hub import time_slice
from heliosd.hub.client import HubClient
from heliosd.hub.inbox import until
from heliosd.protocol.client_commands import Subscribe
from heliosd.protocol.events import MetricValuesChanged
from heliosd.protocol.subscription import Subscription
from tests.support.hub_harness import House, Socket, open_house

CLIENTS = 5000
LEAVING = 1000
ROUNDS = 5
INTERVAL = 1.0
SECONDS_EACH = 50e-6
SECONDS_A_TURN = 1e-3
TURN_SECONDS = time_slice.TURN_SECONDS
"""As the daemon has it; the harness ends every turn at once."""


def every(seconds: float) -> Subscription:
    return Subscription.parse({"custom_metrics": {"min_interval": seconds}})


class LongestTurn:
    """How long others could not run, at most."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def watch(self) -> None:
        since = thread_time()
        while True:
            await trio.lowlevel.checkpoint()
            now = thread_time()
            self.seconds, since = max(self.seconds, now - since), now


@contextmanager
def garbage_collected_as_by_the_daemon() -> Iterator[None]:
    usual = gc.get_threshold()
    garbage.keep_all_so_far()
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


async def publish(house: House, value: float, done: Callable[[], bool]) -> float:
    """A new value of a metric, until it is `done` with it. Returns the longest turn of the loop meanwhile."""
    turns = LongestTurn()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.watch)
        await house.inbox.send(MetricValuesChanged(metrics={"load": house.metric("load", value)}))
        await until(done)
        nursery.cancel_scope.cancel()
    return turns.seconds


def seconds_each(action: Callable[[HubClient], None], clients: list[HubClient]) -> float:
    began = thread_time()
    for client in clients:
        action(client)
    return (thread_time() - began) / len(clients)


@pytest.mark.slow
async def test_five_thousand_clients_with_an_interval_subscribe_and_leave_quickly_and_take_short_turns() -> (
    None
):
    async with open_house() as house:
        with garbage_collected_as_by_the_daemon(), patch.object(time_slice, "TURN_SECONDS", TURN_SECONDS):
            joined = [house.join(f"jti {place}", subscription=every(INTERVAL)) for place in range(CLIENTS)]
            clients, sockets = [client for client, _ in joined], [socket for _, socket in joined]
            turns = [await longest_turns(house, clients, sockets[-1]) for _ in range(ROUNDS)]
            sent, held, released = (median(each) for each in zip(*turns, strict=True))

            sessions = house.hub.sessions
            subscribing = []
            for serial in range(ROUNDS):
                subscribe = Subscribe("s", every(7.0 + serial))
                subscribing.append(seconds_each(lambda client: sessions.execute(client, subscribe), clients))  # noqa: B023
            leaving = clients[:: CLIENTS // LEAVING]
            parts = [leaving[start::ROUNDS] for start in range(ROUNDS)]
            subscribed, left = (
                median(subscribing),
                median(seconds_each(sessions.leave, part) for part in parts),
            )
    print(
        f"longest turns: sent {sent * 1e6:.0f}, held {held * 1e6:.0f}, released {released * 1e6:.0f} µs; "
        f"subscribe {subscribed * 1e6:.1f}, leave {left * 1e6:.1f} µs each"
    )
    assert max(sent, held, released) <= SECONDS_A_TURN
    assert max(subscribed, left) <= SECONDS_EACH


async def longest_turns(
    house: House, clients: list[HubClient], last_socket: Socket
) -> tuple[float, float, float]:
    """While all are sent a value, while one is held for all of them, and while these go."""
    last, frames = clients[-1], len(last_socket.frames)
    sent = await publish(house, 1.0, lambda: len(last_socket.frames) > frames)
    held = await publish(house, 2.0, lambda: is_held(last))
    assert all(is_held(client) for client in clients)
    released = await publish(house, 3.0, lambda: not is_held(last))
    assert not any(is_held(client) for client in clients)
    await trio.sleep(INTERVAL + 0.1)
    return sent, held, released


def is_held(client: HubClient) -> bool:
    return any(value.held is not None for value in (client.paced or {}).values())
