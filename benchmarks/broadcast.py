"""What one broadcast takes and costs with each engine, in one process, beside C: `python -m benchmarks.broadcast`.

Nobody reads meanwhile, as if all clients were on the other side of a network. So the time is that until the last
one's bytes are on their way to it, and a machine's other CPU is free for a second thread. The ways take turns;
figures are medians. The lag is that of a task of the same event loop that sleeps a millisecond, again and again.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import socket
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from math import ceil
from statistics import median

import trio

from heliosd.hub import fanout
from heliosd.hub.direct_writes import DirectWrites
from heliosd.hub.fanout import FanoutEngine
from heliosd.hub.flights import Flights
from heliosd.hub.recipients import Recipients
from heliosd.hub.time_slice import TimeSlice
from heliosd.uring.sender import UringUnavailable, open_sender
from heliosd.websocket.plain import PlainStream

from .clients_in_process import client_on, must_be_done, status_message
from .machine import allow_files, description
from .process import BUILD, HERE, ServerFailed, compile_c

PAYLOAD = b"x" * 1300
SLEEP_SECONDS = 0.001

Way = Callable[[], Awaitable[None]]


def main() -> int:
    options = _options()
    if limited := allow_files(2 * options.clients):
        print(f"cannot measure: {limited}", file=sys.stderr)
        return 1
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        compile_c(HERE / "peers" / "broadcast.c", BUILD / "broadcast.so", "-shared", "-fPIC")
        trio.run(_measure, options.clients, options.rounds, options.threads, options.pause)
    except (ServerFailed, UringUnavailable) as failure:
        print(failure, file=sys.stderr)
        return 1
    print(description())
    return 0


async def _measure(clients: int, rounds: int, threads: list[int], pause: float) -> None:
    with ExitStack() as stack:
        recipients, readers = Recipients(), []
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        for serial in range(clients):
            readers.append(stack.enter_context(socket.create_connection(listener.getsockname())))
            near = stack.enter_context(listener.accept()[0])
            near.setblocking(False)
            recipients.add(client_on(serial, PlainStream(near)))
        ways: dict[str, Way] = _in_c(recipients.fds)
        ways["heliosd, os.write"] = _by(DirectWrites(), recipients)
        for number in threads:
            sender = stack.enter_context(open_sender(number))
            name = f"heliosd, io_uring, {number} thread{'s' if number > 1 else ''}"
            ways[name] = _by(Flights(sender), recipients)
        walls: dict[str, list[float]] = {name: [] for name in ways}
        costs: dict[str, list[float]] = {name: [] for name in ways}
        lags: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_look_at_lag, lags[name])
                    await trio.sleep(max(pause, 2 * SLEEP_SECONDS))
                    cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
                    await way()
                    walls[name].append((time.perf_counter_ns() - wall_ns) / 1e6)
                    costs[name].append((time.process_time_ns() - cpu_ns) / 1000 / clients)
                    nursery.cancel_scope.cancel()
                for reader in readers:
                    reader.recv(65536)
    print(f"{clients:,} clients, medians of {rounds} rounds; ratios are medians of each round's")
    for name in ways:
        wall = median(own / floor for own, floor in zip(walls[name], walls["C send() loop"], strict=True))
        cost = median(own / floor for own, floor in zip(costs[name], costs["C send() loop"], strict=True))
        late = sorted(lags[name])
        lag = f"lag p99 {late[ceil(len(late) * 0.99) - 1]:6.2f} ms" if "heliosd" in name else ""
        print(
            f"{name:30} last after {median(walls[name]):7.1f} ms, x C {wall:4.2f}; "
            f"{median(costs[name]):5.2f} us a delivery, x C {cost:4.2f}; {lag}"
        )


def _in_c(fds: array[int]) -> dict[str, Way]:
    """The floors. They hold the loop for the whole of a broadcast."""
    library = ctypes.CDLL(str(BUILD / "broadcast.so"), use_errno=True)
    taken = array("i", [0]) * len(fds)
    frame = status_message(PAYLOAD).frame
    arguments = (fds.buffer_info()[0], len(fds), frame, len(frame))
    library.send_loop.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    library.send_by_ring.argtypes = [*library.send_loop.argtypes, ctypes.c_void_p]
    if library.open_ring():
        raise UringUnavailable(os.strerror(ctypes.get_errno()))

    async def send_loop() -> None:
        assert library.send_loop(*arguments) == 0

    async def send_by_ring() -> None:
        assert library.send_by_ring(*arguments, taken.buffer_info()[0]) == 0

    return {"C send() loop": send_loop, "C io_uring": send_by_ring}


def _by(engine: FanoutEngine, recipients: Recipients) -> Way:
    async def way() -> None:
        message = status_message(PAYLOAD)
        await fanout.broadcast(engine, recipients, [message], message.frame, must_be_done, TimeSlice())

    return way


async def _look_at_lag(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + SLEEP_SECONDS
        await trio.sleep(SLEEP_SECONDS)
        lags.append((time.perf_counter() - due) * 1000)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.broadcast", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--clients", type=int, default=8000)
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds before each broadcast, in which caches grow cold"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="of io_uring (default 1 and 2)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
