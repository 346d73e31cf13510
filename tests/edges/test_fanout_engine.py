"""Which engine writes to clients, and when a socket is closed that another thread may write to."""

from __future__ import annotations

import errno
import os
import socket as stdlib
import struct
import subprocess
import sys
from array import array
from pathlib import Path

import pytest
import structlog
import trio

from heliosd.config.model import WebSocketConfig
from heliosd.daemon.fanout_engine import fanout_engine, threads_for
from heliosd.uring import sender, syscalls
from heliosd.uring.ring import GONE, Short
from heliosd.uring.sender import UringUnavailable, open_sender
from heliosd.websocket.descriptors import DESCRIPTORS, Descriptors
from heliosd.websocket.plain import PlainStream
from tests.support.deadlines import SECONDS
from tests.support.unit_rules import seccomp_program

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("refused", [errno.EPERM], indirect=True)
def test_what_ends_the_daemon_is_not_said_to_have_come_of_a_refused_io_uring(refused: str) -> None:
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError), fanout_engine(WebSocketConfig(fanout="auto")):
        raise error
    assert error.__context__ is None


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


class FailingRing:
    """A ring for which there is no memory left."""

    def __init__(self) -> None:
        self.broken = ""
        self.closed = False

    def send_same(self, fds: array[int], _address: int, _length: int) -> list[Short]:
        if self.broken:
            return [(place, 0) for place in range(len(fds))]
        raise MemoryError("no memory left")

    def close(self) -> None:
        self.closed = True


async def test_a_thread_whose_ring_fails_lands_its_flight_and_those_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "ring_that_works", lambda _entries: FailingRing())
    with structlog.testing.capture_logs() as lines, trio.fail_after(SECONDS), open_sender(1) as uring:
        assert await uring.send(array("i", [100, 101]), b"x") == [(0, GONE), (1, GONE)]
        assert not uring.usable
        assert isinstance(lines[0]["exc_info"], MemoryError)
        assert await uring.send(array("i", [100, 101]), b"x") == [(0, 0), (1, 0)]


def test_a_ring_that_is_refused_leaves_none_open_of_those_made_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[FailingRing] = []

    def make(_entries: int) -> FailingRing:
        if len(made) == 2:
            raise UringUnavailable("no memory to lock")
        made.append(FailingRing())
        return made[-1]

    monkeypatch.setattr(sender, "ring_that_works", make)
    with pytest.raises(UringUnavailable), open_sender(4):
        pass
    assert [ring.closed for ring in made] == [True, True]


UNDER_A_FILTER = """
import ctypes, sys
program = bytes.fromhex(sys.argv[1])
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
from heliosd.config.model import WebSocketConfig
from heliosd.daemon.fanout_engine import fanout_engine
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program))) == 0  # PR_SET_SECCOMP, a filter
with fanout_engine(WebSocketConfig(fanout="auto")) as engine:
    print("engine:", engine.name)
"""


def engine_under(program: bytes) -> str:
    """What a process under this seccomp filter writes by, with what it logs."""
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_FILTER, program.hex()],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("call", [425, 426, 427], ids=["setup", "enter", "register"])
def test_a_seccomp_filter_that_refuses_one_of_the_three_calls_is_no_harm(call: int) -> None:
    load, jump_if_equal, give = 0x20, 0x15, 0x06
    refused, allowed = 0x00050000 | errno.EPERM, 0x7FFF0000
    steps = [(load, 0, 0, 0), (jump_if_equal, 0, 1, call), (give, 0, 0, refused), (give, 0, 0, allowed)]
    said = engine_under(b"".join(struct.pack("<HBBI", *step) for step in steps))
    assert "engine: write" in said, said
    assert "Operation not permitted" in said


@pytest.mark.needs("systemd-analyze", "gcc")  # gcc: its Debian package brings the numbers of system calls
def test_the_filter_of_the_unit_allows_io_uring() -> None:
    unit = (ROOT / "systemd" / "heliosd.service").read_text()
    lines = [
        line.removeprefix("SystemCallFilter=")
        for line in unit.splitlines()
        if line.startswith("SystemCallFilter=")
    ]
    without = engine_under(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000))
    assert engine_under(seccomp_program(lines)) == without
