"""io_uring as heliosd uses it, held against what the sockets' other ends get. Skipped where the kernel does not
allow it."""

from __future__ import annotations

import errno
import os
import platform
import random
import re
import socket as stdlib
import threading
import weakref
from array import array
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.config.model import WebSocketConfig
from heliosd.daemon.fanout_engine import fanout_engine
from heliosd.protocol.message import Kind
from heliosd.uring import ring, sender, syscalls
from heliosd.uring.ring import GONE
from heliosd.uring.scheduling import SENDER_NICENESS, SLICE_SECONDS
from heliosd.uring.sender import UringUnavailable, open_sender, ring_that_works
from tests.support.daemon_process import lacking, wait_until
from tests.support.recipients_world import RecipientsWorld, world

ENTRIES = 4
"""Of the rings here: so few that most sends take several turns and begin anywhere in the ring."""
CHURN_SECONDS = 0.7
SLICES_CAN_BE_SET = tuple(map(int, platform.release().split(".")[:2])) >= (6, 12)


@pytest.fixture(autouse=True)
def _small_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "ENTRIES", ENTRIES)
    monkeypatch.setattr(sender, "FLIGHT", 2 * ENTRIES)
    try:
        ring_that_works(ENTRIES).close()
    except UringUnavailable as unavailable:
        lacking(str(unavailable))


class Line:
    """A socket of ours and its other end."""

    def __init__(self, buffer_bytes: int) -> None:
        self.near, self.far = stdlib.socketpair()
        for socket in (self.near, self.far):
            socket.setblocking(False)
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, buffer_bytes)
        self.closed = False
        self.taken = bytearray()
        """What the kernel said that it took."""
        self.come = bytearray()

    def read(self) -> None:
        """Take what has come."""
        with suppress(BlockingIOError, ConnectionError):
            while data := self.far.recv(65_536):
                self.come += data

    def close_far(self) -> None:
        """Its peer goes. What it has not read is lost."""
        self.read()
        self.far.close()
        self.closed = True

    def close(self) -> None:
        self.near.close()
        self.far.close()


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["same", "each", "same", "each", "read", "close", "absent"]), st.integers(0, 10**6)
    ),
    max_size=25,
)


@settings(max_examples=settings().max_examples * 2 // 5)
@given(st.integers(1, 11), STEPS)
def test_each_socket_gets_what_the_ring_says_that_it_took_and_nothing_else(
    lines: int, steps: list[Step]
) -> None:
    """Short writes, full sockets, closed peers and descriptors that are none, in any order."""
    with ExitStack() as stack:
        made = ring_that_works(ENTRIES)
        stack.callback(made.close)
        rng = random.Random(len(steps))
        each = [Line(rng.choice((4608, 65_536))) for _ in range(lines)]
        for line in each:
            stack.callback(line.close)
        absent: set[int] = set()
        for name, number in steps:
            match name:
                case "read" if not each[number % lines].closed:
                    each[number % lines].read()
                case "close" if not each[number % lines].closed:
                    each[number % lines].close_far()
                case "absent":
                    absent ^= {number % lines}
                case "same" | "each":
                    _offer(made, each, absent, number, alike=name == "same")
        for line in each:
            if not line.closed:
                line.read()
                assert line.come == line.taken


def _offer(made: ring.Ring, lines: list[Line], absent: set[int], number: int, *, alike: bool) -> None:
    """Send to all of them, and note what they are said to have taken."""
    sizes = [1 + (number // (1 if alike else place + 1)) % 9000 for place in range(len(lines))]
    payloads = [bytes([(number + (0 if alike else place)) % 256]) * size for place, size in enumerate(sizes)]
    joined = b"".join(payloads)
    start = sender.address_of(joined)
    addresses = array("Q", [start + sum(sizes[:place]) for place in range(len(lines))])
    fds = array("i", [-1 if place in absent else line.near.fileno() for place, line in enumerate(lines)])
    if alike:
        short = dict(made.send_same(fds, start, sizes[0]))
    else:
        short = dict(made.send_each(fds, addresses, array("i", sizes)))
    assert not made.broken
    for place, (line, payload) in enumerate(zip(lines, payloads, strict=True)):
        taken = short.get(place, len(payload))
        assert place not in short or taken < len(payload)
        assert (taken == GONE) == (line.closed or place in absent)
        if taken != GONE:
            line.taken += payload[:taken]


@pytest.mark.parametrize("threads", [1, 3])
async def test_a_sender_reports_the_places_of_those_that_did_not_take_all(threads: int) -> None:
    with trio.fail_after(60), open_sender(threads) as uring, ExitStack() as stack:
        lines = [Line(65_536) for _ in range(3 * ENTRIES * threads + 1)]
        for line in lines:
            stack.callback(line.close)
        fds = array("i", [line.near.fileno() for line in lines])
        assert await uring.send(fds, b"x" * 100) == []
        assert await uring.send(fds, [b"%d," % place for place in range(len(fds))]) == []
        lines[2].close_far()
        with suppress(BlockingIOError):
            while lines[-1].near.send(b"y" * 60_000):
                pass
        assert dict(await uring.send(fds, b"z" * 100)) == {2: GONE, len(lines) - 1: 0}
        for place, line in enumerate(lines[3:-1], 3):
            line.read()
            assert line.come == b"x" * 100 + b"%d," % place + b"z" * 100


class Payloads(list[bytes]):
    """A list that can be watched, as can its parts."""

    parts: ClassVar[list[weakref.ref[Payloads]]] = []

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(key, slice):
            part = Payloads(part)
            self.parts.append(weakref.ref(part))
        return part


async def test_what_was_sent_over_tls_is_kept_by_nobody() -> None:
    line = Line(65_536)
    with trio.fail_after(60), open_sender(1) as uring:
        assert await uring.send(array("i", [line.near.fileno()]), Payloads([b"x" * 100])) == []
        assert [part() for part in Payloads.parts] == [None]
    line.close()


def slice_of(thread: int) -> int:
    """Nanoseconds of CPU time that the kernel gives this thread at a time; 0 where it does not say."""
    path = Path(f"/proc/self/task/{thread}/sched")
    known = re.search(r"^se\.slice +: +(\d+)$", path.read_text() if path.exists() else "", re.MULTILINE)
    return int(known[1]) if known else 0


def niceness_of(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def test_the_loop_goes_before_the_threads_that_send_and_all_is_as_before_once_they_have_ended() -> None:
    loop = threading.get_native_id()
    usual, niceness = slice_of(loop), niceness_of(loop)
    with open_sender(2):
        senders = [each.native_id or 0 for each in threading.enumerate() if each.name == "heliosd-fanout"]
        assert len(senders) == 2
        wait_until(
            lambda: [niceness_of(each) for each in senders] == [min(19, niceness + SENDER_NICENESS)] * 2
        )
        assert [slice_of(each) for each in senders] == [usual, usual]
        wait_until(lambda: [os.sched_getscheduler(each) for each in senders] == [os.SCHED_BATCH] * 2)
        assert slice_of(loop) == (SLICE_SECONDS * 1e9 if usual and SLICES_CAN_BE_SET else usual)
        assert niceness_of(loop) == niceness
    assert (slice_of(loop), niceness_of(loop)) == (usual, niceness)


async def churn(uring: sender.UringSender, seconds: float, seed: int, *, over_tls: bool) -> None:
    """Broadcasts, and meanwhile clients that come, go, stall, end and get others' descriptors."""
    rng = random.Random(seed)
    acts = ["come", "come", "replace", "leave", "end", "send a little", "send much", *["catch up"] * 6]
    acts += ["hold", "release", "release", "vanish"]
    over = trio.Event()

    async def come_and_go(one: RecipientsWorld) -> None:
        while not over.is_set():
            for _ in range(rng.randrange(4)):
                if len(one.here) < 12:
                    await one.come()
                await one.do((rng.choice(acts), rng.randrange(100)))
                one.check()
            await trio.lowlevel.checkpoint()

    async with world(over_tls=over_tls, flying=True, chunk=1, sender=uring) as one:
        for _ in range(12):
            await one.come()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_and_go, one)
            until = trio.current_time() + seconds
            while trio.current_time() < until:
                await one.broadcast([one.message(Kind.EVENT, rng.choice((20, 700, 3000)))], [])
                await trio.lowlevel.checkpoint()
            over.set()
        one.check_at_the_end()
        assert one.gone


@pytest.mark.parametrize("over_tls", [False, True])
async def test_under_churn_each_client_gets_what_is_its_own_and_all_of_it(over_tls: bool) -> None:
    with open_sender(2) as uring:
        await churn(uring, CHURN_SECONDS, 1, over_tls=over_tls)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
async def test_in_50_runs_of_churn_each_client_gets_what_is_its_own_and_all_of_it(seed: int) -> None:
    with open_sender(1 + seed % 3) as uring:
        await churn(uring, 3.0, seed, over_tls=seed % 4 == 3)


async def test_what_a_ring_does_not_take_any_more_is_sent_by_the_other_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = 0

    def refuse(number: int, submit: int, *, wait_for: int = 0) -> int:
        nonlocal taken
        taken += submit
        if taken > 3:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return enter(number, submit, wait_for=wait_for)

    with open_sender(1) as uring, structlog.testing.capture_logs() as lines:
        enter = syscalls.enter
        monkeypatch.setattr(syscalls, "enter", refuse)
        async with world(over_tls=False, flying=True, chunk=1, sender=uring) as one:
            for _ in range(6):
                await one.come()
            for _ in range(3):
                await one.broadcast([one.message(Kind.EVENT, 20)], [])
            assert (one.engine.name, one.engine.threads) == ("write", 0)
            one.check_at_the_end()
    assert [line["event"] for line in lines] == [
        "io_uring takes nothing any more; fan-out goes on by os.write"
    ]
    assert "Cannot allocate memory" in lines[0]["reason"]


@pytest.mark.parametrize("wanted", ["auto", "uring"])
def test_where_io_uring_is_allowed_it_is_taken_with_as_many_threads_as_configured(wanted: str) -> None:
    config = WebSocketConfig(fanout=wanted, fanout_threads=3)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as lines, fanout_engine(config) as engine:
        assert (engine.name, engine.threads) == ("uring", 3)
    assert lines == []


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_threads_that_cannot_be_started_leave_no_ring_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = descriptors()
    with pytest.raises(UringUnavailable, match="cannot start 3 threads"), open_sender(3):
        pass
    assert descriptors() == before
