"""The connections to etcd: what is sent arrives whole, and each way in which they end."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from heliosd.cluster.etcd.client.tcp_stream import TcpStream
from tests.support.deadlines import SECONDS

LARGE = bytes(range(256)) * 40_000


async def connected() -> tuple[TcpStream, TcpStream]:
    """Two ends of a connection over loopback."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        one = trio.socket.socket()
        await one.connect(listener.getsockname())
        other, _ = await listener.accept()
        return TcpStream(one), TcpStream(other)


async def test_more_than_the_kernel_takes_at_once_arrives_whole() -> None:
    with trio.fail_after(SECONDS):
        one, other = await connected()
        received = bytearray()
        async with one, other, trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, LARGE)
            while len(received) < len(LARGE):
                received += await other.receive_some()
        assert received == LARGE


async def test_the_kernel_asks_a_silent_other_side_whether_the_connection_still_exists() -> None:
    one, other = await connected()
    async with one, other:
        assert one.socket.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE) == 1
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        idle, again, times = (
            one.socket.getsockopt(trio.socket.IPPROTO_TCP, getattr(trio.socket, name)) for name in names
        )
        assert idle + again * times <= 15


async def test_a_request_that_was_cancelled_before_it_began_is_not_sent() -> None:
    with trio.fail_after(SECONDS):
        one, other = await connected()
        async with one, other:
            with trio.CancelScope() as scope:
                scope.cancel()
                await one.send_all(b"first")
            await one.send_all(b"second")
            assert await other.receive_some() == b"second"


async def test_an_end_is_empty_a_reset_is_a_broken_stream_and_a_closed_one_says_so() -> None:
    with trio.fail_after(SECONDS):
        one, other = await connected()
        async with one:
            await other.aclose()
            assert await one.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")
        one, other = await connected()
        async with one:
            other.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await other.aclose()
            with pytest.raises(trio.BrokenResourceError) as broken:
                await one.receive_some()
            assert isinstance(broken.value.__cause__, ConnectionResetError)
            with pytest.raises(trio.BrokenResourceError):
                await one.send_all(b"x")


async def test_what_waits_for_an_answer_ends_when_the_connection_is_closed() -> None:
    with trio.fail_after(SECONDS):
        one, other = await connected()
        ended = []

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await one.receive_some()
            ended.append(True)

        async with other, trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await one.aclose()
        assert ended
