"""Which engine writes to clients, and when a socket is closed that another thread may write to."""

from __future__ import annotations

import errno
import os
import socket as stdlib

import pytest
import structlog
import trio

from heliosd.config.model import WebSocketConfig
from heliosd.daemon.fanout_engine import fanout_engine, threads_for
from heliosd.uring import syscalls
from heliosd.websocket.descriptors import DESCRIPTORS, Descriptors
from heliosd.websocket.plain import PlainStream


async def test_a_socket_in_flight_is_closed_when_the_flight_ends_and_its_number_is_no_others_before() -> None:
    near, far = stdlib.socketpair()
    stream, number = PlainStream(near), near.fileno()
    with far:
        with DESCRIPTORS.in_flight([number]):
            stream.abort()
            assert stream.fileno() == -1
            others = [stdlib.socket() for _ in range(8)]
            assert number not in [other.fileno() for other in others]
            far.setblocking(False)
            with pytest.raises(BlockingIOError):
                far.recv(1)
        assert far.recv(1) == b""
        for other in others:
            other.close()
    await trio.lowlevel.checkpoint()


def test_a_descriptor_in_two_flights_is_closed_after_both() -> None:
    descriptors = Descriptors()
    read, write = os.pipe()
    with descriptors.in_flight([read, 3]):
        with descriptors.in_flight([4, read]):
            descriptors.close(read)
        os.fstat(read)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read)
    os.close(write)


@pytest.fixture
def refused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kernel that refuses io_uring with this error."""
    code: int = request.param

    def refuse(_entries: int) -> tuple[int, list[int]]:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(syscalls, "setup", refuse)
    return os.strerror(code)


@pytest.mark.parametrize("refused", [errno.ENOSYS, errno.EPERM, errno.ENOMEM, errno.EMFILE], indirect=True)
@pytest.mark.parametrize(("wanted", "level"), [("auto", "info"), ("uring", "warning")])
def test_where_io_uring_is_refused_it_is_os_write_and_one_line_says_why(
    refused: str, wanted: str, level: str
) -> None:
    with structlog.testing.capture_logs() as lines, fanout_engine(WebSocketConfig(fanout=wanted)) as engine:  # type: ignore[arg-type]
        assert (engine.name, engine.threads) == ("write", 0)
    (line,) = lines
    assert line["event"] == "fan-out by os.write: io_uring cannot be used"
    assert line["log_level"] == level
    assert refused in line["reason"]


def test_write_asks_for_no_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "setup", None)
    with fanout_engine(WebSocketConfig(fanout="write")) as engine:
        assert engine.name == "write"


def test_one_cpu_is_left_to_the_event_loop_and_at_most_four_are_taken() -> None:
    assert [threads_for(cpus) for cpus in (1, 2, 3, 5, 64)] == [1, 1, 2, 4, 4]
