"""Clients from which nothing comes any more, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.hub.client import HubClient
from heliosd.hub.silence import ANSWER_SECONDS, SilenceWatch
from tests.support.hub_harness import House, Turns, open_house

READ_TIMEOUT = 60.0


@pytest.fixture(name="house")
async def hub_harness(mock_clock: MockClock) -> AsyncIterator[House]:
    async with open_house() as opened:
        opened.nursery.start_soon(SilenceWatch(opened.hub.connections).run)
        yield opened


async def passed(clock: MockClock, seconds: float) -> None:
    await wait_all_tasks_blocked()
    clock.jump(seconds)
    await wait_all_tasks_blocked()


def answered(client: HubClient) -> None:
    client.heard = trio.current_time()


async def test_who_is_silent_is_pinged_once_more_and_closed_at_read_timeout(
    mock_clock: MockClock, house: House
) -> None:
    await wait_all_tasks_blocked()
    client, socket = house.join()
    answered(client)
    await passed(mock_clock, READ_TIMEOUT - ANSWER_SECONDS)
    assert (socket.pings, socket.close_code()) == (1, None)
    await passed(mock_clock, ANSWER_SECONDS)
    assert (socket.pings, socket.close_code()) == (1, 1001)


async def test_who_answers_the_last_ping_stays(mock_clock: MockClock, house: House) -> None:
    client, socket = house.join()
    answered(client)
    await passed(mock_clock, READ_TIMEOUT - ANSWER_SECONDS)
    answered(client)
    await passed(mock_clock, ANSWER_SECONDS)
    await passed(mock_clock, READ_TIMEOUT - 2 * ANSWER_SECONDS)
    assert (socket.pings, socket.close_code()) == (2, None)


@pytest.mark.parametrize("pause", [READ_TIMEOUT, 100 * READ_TIMEOUT])
async def test_after_a_pause_of_this_process_everybody_is_asked_before_anyone_is_closed(
    mock_clock: MockClock, house: House, pause: float
) -> None:
    (alive, its_socket), (dead, other_socket) = house.join(), house.join()
    answered(alive)
    answered(dead)
    await passed(mock_clock, pause)
    assert its_socket.close_code() is other_socket.close_code() is None
    answered(alive)
    await passed(mock_clock, ANSWER_SECONDS)
    assert (its_socket.close_code(), other_socket.close_code()) == (None, 1001)


async def test_a_pause_between_the_last_ping_and_its_answer_does_not_count(
    mock_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    answered(client)
    await passed(mock_clock, READ_TIMEOUT - ANSWER_SECONDS)
    await passed(mock_clock, 3.0)
    assert (socket.pings, socket.close_code()) == (2, None)
    await passed(mock_clock, ANSWER_SECONDS)
    assert socket.close_code() == 1001


async def test_somebody_elses_turn_does_not_shorten_the_time_to_answer(
    mock_clock: MockClock, house: House
) -> None:
    (first, one), (second, other) = house.join(), house.join()
    answered(first)
    await passed(mock_clock, ANSWER_SECONDS / 2)
    answered(second)
    await passed(mock_clock, READ_TIMEOUT - 1.5 * ANSWER_SECONDS)
    assert (one.pings, other.pings) == (1, 0)
    await passed(mock_clock, ANSWER_SECONDS / 2)
    assert (one.close_code(), other.pings) == (None, 1)
    await passed(mock_clock, ANSWER_SECONDS / 2)
    assert (one.close_code(), other.close_code()) == (1001, None)


async def test_a_look_at_many_clients_who_are_all_well_is_more_than_one_turn(
    mock_clock: MockClock, house: House
) -> None:
    """In the house a time slice ends at once."""
    await wait_all_tasks_blocked()
    for client in [house.join()[0] for _ in range(100)]:
        answered(client)
    turns = Turns("SilenceWatch.run")
    house.nursery.start_soon(SilenceWatch(house.hub.connections).run)
    await wait_all_tasks_blocked()
    assert turns.count > 100
