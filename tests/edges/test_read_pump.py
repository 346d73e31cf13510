"""A client's read pump and the epoll it waits on, over real connections, plain and over TLS."""

from __future__ import annotations

import gc
import os
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from heliosd.web.stream.read_pump import PONGS_IN_A_ROW, RECEIVE_BYTES, ReadPump
from heliosd.websocket.connection import Inbound
from heliosd.websocket.plain import PlainStream
from heliosd.websocket.readiness import Readiness
from tests.support.front_server import becomes, reset
from tests.support.socket_pairs import (
    LIMIT_SECONDS,
    NEVER,
    Pumped,
    connected,
    moved_to,
    pumped,
    running_readiness,
    transport,
)
from tests.support.wire import PING, PONG, TEXT, masked

BOTH = pytest.mark.parametrize("over_tls", [False, True])
HELLO = masked(TEXT, b"hello")


def pong() -> bytes:
    return masked(PONG, b"")


# -- data --------------------------------------------------------------------------------------------------------


@BOTH
async def test_bytes_wake_a_waiting_pump(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(mine.run)
        await wait_all_tasks_blocked()
        for number in range(1, 4):
            await theirs.send_all(HELLO)
            await becomes(lambda number=number: mine.data == HELLO * number)  # type: ignore[misc]
            await wait_all_tasks_blocked()
        assert mine.got == [HELLO] * 3
        assert mine.client.heard != NEVER


@BOTH
async def test_bytes_from_before_the_pump_was_made_are_read(over_tls: bool) -> None:
    async with connected(over_tls) as (ours, theirs), running_readiness() as (readiness, _):
        await theirs.send_all(HELLO)
        mine = Pumped(ours, readiness)
        assert await mine.take() == HELLO
        mine.pump.close()


@BOTH
async def test_bytes_from_before_it_waits_are_read(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, _):
        await theirs.send_all(HELLO)
        await wait_all_tasks_blocked()
        assert await mine.take() == HELLO
        await theirs.send_all(HELLO)
        await wait_all_tasks_blocked()
        assert await mine.take() == HELLO


async def test_bytes_that_tls_holds_when_the_pump_is_made_are_read() -> None:
    """Two records in one segment: with the first the second has left the socket, which will not be ready again."""
    async with connected(True) as (ours, theirs), running_readiness() as (readiness, _):
        await theirs.send_all(b"the request")
        await theirs.send_all(HELLO)
        assert await ours.receive_some() == b"the request"
        mine = Pumped(ours, readiness)
        assert await mine.take() == HELLO
        mine.pump.close()


@BOTH
async def test_a_message_in_pieces_is_read_piece_by_piece(over_tls: bool) -> None:
    text = masked(TEXT, os.urandom(200))
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(mine.run)
        for end in range(1, len(text) + 1):
            await theirs.send_all(text[end - 1 : end])
            await becomes(lambda end=end: len(mine.data) == end)  # type: ignore[misc]
        assert mine.data == text


@BOTH
async def test_more_than_is_read_at_once_comes_in_order_and_in_parts(over_tls: bool) -> None:
    text = masked(TEXT, os.urandom(300_000))
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(theirs.send_all, text)
        while len(mine.data) < len(text):
            piece = await mine.take()
            assert piece
            assert len(piece) <= RECEIVE_BYTES
        assert mine.data == text


@BOTH
@pytest.mark.parametrize("size", [RECEIVE_BYTES - 1, RECEIVE_BYTES, RECEIVE_BYTES + 1, 2 * RECEIVE_BYTES])
async def test_it_waits_again_after_just_as_much_as_is_read_at_once(over_tls: bool, size: int) -> None:
    data = masked(TEXT, bytes(size - 8))
    assert len(data) == size
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(mine.run)
        await theirs.send_all(data)
        await becomes(lambda: len(mine.data) == size)
        await wait_all_tasks_blocked()
        await theirs.send_all(HELLO)
        await becomes(lambda: mine.data == data + HELLO)


@BOTH
async def test_receiving_is_a_checkpoint_also_where_there_is_more(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(theirs.send_all, bytes(50_000))
        for _ in range(5):
            with trio.testing.assert_checkpoints():
                assert await mine.pump.receive()
        mine.pump.linger()
        with trio.testing.assert_checkpoints():
            assert await mine.pump.receive() is None
        mine.pump.hang_up()
        with trio.testing.assert_checkpoints():
            assert await mine.pump.receive() == b""


# -- the end -----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("parked", [False, True])
async def test_an_end_right_behind_data_is_read_after_it(over_tls: bool, parked: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        if parked:
            nursery.start_soon(mine.run)
            await wait_all_tasks_blocked()
        await theirs.send_all(HELLO)
        await theirs.aclose()
        if not parked:
            await wait_all_tasks_blocked()
            await mine.run()
        await becomes(lambda: mine.got[-1:] == [b""])
        assert mine.data == HELLO
        assert await mine.pump.receive() == b""


@BOTH
async def test_an_end_right_behind_lone_pongs_is_read(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(mine.run)
        await wait_all_tasks_blocked()
        await theirs.send_all(pong())
        await theirs.aclose()
        await becomes(lambda: mine.got == [b""])


@BOTH
async def test_an_end_without_close_notify_is_an_end(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, _):
        await theirs.send_all(HELLO)
        await transport(theirs).aclose()
        await mine.run()
        assert mine.data == HELLO


@BOTH
@pytest.mark.parametrize("parked", [False, True])
async def test_a_reset_is_an_end(over_tls: bool, parked: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        if parked:
            nursery.start_soon(mine.run)
            await wait_all_tasks_blocked()
        reset(transport(theirs))
        if not parked:
            await mine.run()
        await becomes(lambda: mine.got == [b""])


async def test_bytes_that_are_not_tls_are_an_end() -> None:
    async with pumped(True) as (mine, theirs, nursery):
        nursery.start_soon(mine.run)
        await wait_all_tasks_blocked()
        await transport(theirs).send_all(b"this is not TLS at all, not at all")
        await becomes(lambda: mine.got == [b""])


# -- lone pongs --------------------------------------------------------------------------------------------------


@BOTH
async def test_lone_pongs_are_noted_and_wake_no_task(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(mine.run)
        await wait_all_tasks_blocked()
        for _ in range(5):
            await theirs.send_all(pong())
            await mine.noted()
        assert mine.got == []
        await theirs.send_all(HELLO)
        await becomes(lambda: mine.got == [HELLO])


@BOTH
async def test_a_lone_pong_before_it_waits_is_noted_and_wakes_no_task(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        await theirs.send_all(pong())
        await wait_all_tasks_blocked()
        nursery.start_soon(mine.run)
        await mine.noted()
        assert mine.got == []


@BOTH
async def test_in_the_middle_of_a_message_what_looks_like_a_pong_goes_to_the_parser(over_tls: bool) -> None:
    lookalike = pong()
    text = masked(TEXT, b"begun " + lookalike + b" ended")
    start = text[:-20]
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(mine.run)
        for piece in (start, lookalike, text[-20:]):
            await theirs.send_all(piece)
            await mine.noted()
        assert mine.got == [start, lookalike, text[-20:]]


@BOTH
async def test_a_pong_between_two_fragments_goes_to_the_parser(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, _):
        mine.pump.inbound = Inbound(100)
        await theirs.send_all(lone := pong())
        assert await mine.pump.receive() == lone


@BOTH
@pytest.mark.parametrize(
    "lone",
    [masked(PONG, b"x"), masked(PING, b""), pong() * 2, pong()[:5]],
    ids=["a pong with a payload", "a ping", "two pongs", "a part of a pong"],
)
async def test_anything_but_a_lone_pong_wakes_it(over_tls: bool, lone: bytes) -> None:
    async with pumped(over_tls) as (mine, theirs, _):
        await theirs.send_all(lone)
        assert await mine.take() == lone


@BOTH
@pytest.mark.parametrize("parked", [False, True])
async def test_a_thousand_pongs_in_a_row_lose_nothing_behind_them(over_tls: bool, parked: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        if parked:
            nursery.start_soon(mine.run)
        for _ in range(1000):
            await theirs.send_all(b"\x8a\x80\x00\x00\x00\x00")
        await theirs.send_all(HELLO)
        if not parked:
            nursery.start_soon(mine.run)
        await becomes(lambda: mine.data.endswith(HELLO))
        pongs = mine.data[: -len(HELLO)]
        assert pongs == b"\x8a\x80\x00\x00\x00\x00" * (len(pongs) // 6)


async def test_a_flood_of_pongs_over_tls_lets_other_tasks_run() -> None:
    async with pumped(True) as (mine, theirs, _):
        for _ in range(10 * PONGS_IN_A_ROW):
            await theirs.send_all(pong())
        for _ in range(10):
            assert len(await mine.take() or b"") == 6
        assert mine.client.heard != NEVER


# -- hanging up, lingering ---------------------------------------------------------------------------------------


@BOTH
async def test_hanging_up_wakes_a_waiting_pump_with_the_end(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, _, nursery):
        nursery.start_soon(mine.run)
        await wait_all_tasks_blocked()
        mine.pump.hang_up()
        await wait_all_tasks_blocked()
        assert mine.got == [b""]


@BOTH
async def test_after_hanging_up_it_reads_the_end_whatever_has_come(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, _):
        await theirs.send_all(HELLO)
        await wait_all_tasks_blocked()
        mine.pump.hang_up()
        for _ in range(3):
            assert await mine.take() == b""
        mine.pump.linger()
        assert await mine.take() == b""


@BOTH
async def test_hanging_up_after_data_has_woken_it_yields_both(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(mine.run)
        await wait_all_tasks_blocked()
        await theirs.send_all(HELLO)
        mine.pump.readable(ending=False)  # it is awake now, and has not run yet
        mine.pump.hang_up()
        await wait_all_tasks_blocked()
        assert mine.got == [HELLO, b""]


@BOTH
async def test_lingering_is_reported_once_whether_it_waits_or_not(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        mine.pump.linger()
        assert await mine.take() is None
        nursery.start_soon(mine.run)
        await wait_all_tasks_blocked()
        assert mine.got == [None]
        mine.pump.linger()
        await wait_all_tasks_blocked()
        assert mine.got == [None, None]
        await theirs.send_all(HELLO)
        await becomes(lambda: mine.got == [None, None, HELLO])


@BOTH
async def test_lingering_is_reported_before_bytes_and_loses_none_of_them(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, _):
        await theirs.send_all(HELLO)
        await wait_all_tasks_blocked()
        mine.pump.linger()
        assert await mine.take() is None
        assert await mine.take() == HELLO


@BOTH
async def test_lingering_after_data_has_woken_it_is_reported_next(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        nursery.start_soon(mine.run)
        await wait_all_tasks_blocked()
        await theirs.send_all(HELLO)
        mine.pump.readable(ending=False)
        mine.pump.linger()
        await wait_all_tasks_blocked()
        assert mine.got == [HELLO, None]


# -- cancelling --------------------------------------------------------------------------------------------------


@BOTH
async def test_a_receive_cancelled_while_waiting_may_be_repeated(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_parked, scope)
            await mine.take()
        assert scope.cancelled_caught
        await theirs.send_all(HELLO)
        await wait_all_tasks_blocked()
        assert await mine.take() == HELLO


async def _cancel_when_parked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


@BOTH
async def test_a_receive_cancelled_after_data_has_woken_it_returns_the_data(over_tls: bool) -> None:
    async with pumped(over_tls) as (mine, theirs, nursery):
        scope = trio.CancelScope()

        async def read() -> None:
            with scope:
                await mine.take()

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await theirs.send_all(HELLO)
        mine.pump.readable(ending=False)
        scope.cancel()
        await wait_all_tasks_blocked()
        assert mine.got == [HELLO]


# -- descriptors that are used again -----------------------------------------------------------------------------


async def test_a_reused_descriptor_belongs_to_the_new_client_only() -> None:
    async with (
        connected(False) as (first, first_peer),
        connected(False) as (second, second_peer),
        running_readiness() as (readiness, nursery),
    ):
        old = Pumped(first, readiness)
        nursery.start_soon(old.run)
        await wait_all_tasks_blocked()
        number = first.fileno()
        os.write(transport(first_peer).socket.fileno(), b"unread")  # and no checkpoint before it is closed
        old.pump.close()
        await first.aclose()
        assert isinstance(second, PlainStream)
        reused = moved_to(number, second)
        new = Pumped(reused, readiness)
        nursery.start_soon(new.run)
        await second_peer.send_all(HELLO)
        await becomes(lambda: new.got == [HELLO])
        old.pump.close()  # once more, too late, does no harm
        await second_peer.send_all(HELLO)
        await becomes(lambda: new.got == [HELLO, HELLO])
        assert old.got == []
        new.pump.close()
        reused.abort()


async def test_a_client_that_was_cut_leaves_its_descriptor_to_the_next_one() -> None:
    """The hub cuts a client by itself; the client's task finds out, and closes its pump, only later."""
    async with (
        connected(False) as (first, _),
        connected(False) as (second, second_peer),
        running_readiness() as (readiness, nursery),
    ):
        old = Pumped(first, readiness)
        nursery.start_soon(old.run)
        await wait_all_tasks_blocked()
        number = first.fileno()
        old.pump.hang_up()
        first.abort()
        assert isinstance(second, PlainStream)
        reused = moved_to(number, second)
        new = Pumped(reused, readiness)
        nursery.start_soon(new.run)
        await wait_all_tasks_blocked()
        assert old.got == [b""]
        old.pump.close()
        await second_peer.send_all(HELLO)
        await becomes(lambda: new.got == [HELLO])
        new.pump.close()
        reused.abort()


async def test_nothing_refers_to_a_client_that_was_cut() -> None:
    async with connected(False) as (ours, _), running_readiness() as (readiness, nursery):
        mine = Pumped(ours, readiness)
        nursery.start_soon(mine.run)
        await wait_all_tasks_blocked()
        mine.pump.hang_up()
        ours.abort()
        mine.pump.close()
        await wait_all_tasks_blocked()
        del mine
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, ReadPump)]


async def test_pumps_may_be_made_and_closed_after_readiness_has_ended() -> None:
    """When all is cancelled at once, the order in which tasks end is not known."""
    with trio.fail_after(LIMIT_SECONDS):
        async with connected(False) as (ours, _), connected(False) as (later, _):
            readiness = Readiness()
            mine = Pumped(ours, readiness)
            with trio.CancelScope() as scope:
                scope.cancel()
                await readiness.run()
            mine.pump.close()
            Pumped(later, readiness).pump.close()


async def test_many_that_are_ready_at_once_are_all_read() -> None:
    async with AsyncExitStack() as stack, running_readiness() as (readiness, nursery):
        streams = [await stack.enter_async_context(connected(False)) for _ in range(100)]
        mine = [Pumped(ours, readiness) for ours, _ in streams]
        for each in mine:
            nursery.start_soon(each.run)
        await wait_all_tasks_blocked()
        for _, theirs in streams:
            await theirs.send_all(HELLO)
        await becomes(lambda: all(each.got == [HELLO] for each in mine))
        for each in mine:
            each.pump.close()
