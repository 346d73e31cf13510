"""What compression costs: a broadcast to clients that took it beside one to clients that did not.

    python -m benchmarks.compression [--clients 1000] [--broadcasts 1500] [--check]

A real status message goes out to real sockets by the daemon's own fan-out, plain and compressed in turn, so that
whatever else the machine does meets both. Each broadcast is composed anew: its compressing is in its cost.

Exit code: 0 when it was measured, 1 when that failed, or with `--check` when a broadcast costs over 15 µs more.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from math import ceil, floor
from pathlib import Path
from statistics import median

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request, TextMessage

from heliosd.hub import fanout
from heliosd.hub.direct_writes import DirectWrites
from heliosd.hub.recipients import Recipients
from heliosd.hub.time_slice import TimeSlice
from heliosd.protocol.message import OutgoingMessage
from heliosd.websocket.plain import PlainStream

from .clients_in_process import client_on, must_be_done, status_message
from .heliosd_server import Heliosd
from .process import ServerFailed, Task

MOST_US = 15.0
SECONDS = 10.0
_CACHE_BYTES = 64 << 20
"""More than a CPU's caches hold: between two broadcasts of a daemon its clients are forgotten there."""


def main() -> int:
    options = _options()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    try:
        payload = _status_update()
    except (ServerFailed, OSError) as failure:
        print(failure, file=sys.stderr)
        return 1
    plain, compressed = trio.run(_measure, options.clients, options.broadcasts, payload)
    example = status_message(payload)
    for name, costs, frame in (
        ("plain", plain, example.frame),
        ("compressed", compressed, example.deflated),
    ):
        print(f"{name:<11}{median(costs):>8.0f} CPU-µs a broadcast of {len(frame)} bytes")
    differences = sorted(one - other for one, other in zip(compressed, plain, strict=True))
    more = median(differences)
    low, high = _interval(differences)
    print(
        f"{options.clients} clients that took compression cost {more:+.0f} µs a broadcast "
        f"(median of {len(differences)} pairs; 95 % interval {low:+.0f} to {high:+.0f})"
    )
    print(f"target: at most {MOST_US:.0f} µs more: {'holds' if more <= MOST_US else 'MISSED'}")
    return 0 if more <= MOST_US or not options.check else 1


def _interval(ordered: list[float]) -> tuple[float, float]:
    """Between which two of the values their median lies with 95 % confidence, by the binomial's normal form."""
    half, spread = len(ordered) / 2, 0.98 * len(ordered) ** 0.5
    return ordered[max(0, floor(half - spread))], ordered[min(len(ordered) - 1, ceil(half + spread))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compression", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--clients", type=int, default=1000, help="receivers (default 1000)")
    parser.add_argument("--broadcasts", type=int, default=1500, help="of each kind (default 1500)")
    parser.add_argument("--check", action="store_true", help="exit 1 when the target is missed")
    return parser.parse_args()


def _status_update() -> bytes:
    """One as a daemon sends it."""
    with tempfile.TemporaryDirectory(prefix="heliosd-bench-") as scratch:
        cpu = min(os.sched_getaffinity(0))
        task = Task(interval=0.1, message_bytes=0, clients=1, cpus=str(cpu), scratch=Path(scratch))
        with contextmanager(Heliosd().start)(task) as daemon:
            host, port = daemon.address.rsplit(":", 1)
            with socket.create_connection((host, int(port)), SECONDS) as connection:
                wire = WSConnection(ConnectionType.CLIENT)
                connection.sendall(wire.send(Request(daemon.address, daemon.target)))
                text = ""
                while data := connection.recv(65_536):
                    wire.receive_data(data)
                    for event in wire.events():
                        if isinstance(event, TextMessage):
                            text += event.data
                            if event.message_finished and json.loads(text)["type"] == "status_update":
                                return text.encode()
                            text = "" if event.message_finished else text
    raise ServerFailed("heliosd sent no status_update")


async def _measure(count: int, broadcasts: int, payload: bytes) -> tuple[list[float], list[float]]:
    """CPU-µs of each broadcast, plain ones and compressed ones, in pairs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    costs: dict[bool, list[float]] = {False: [], True: []}
    forgetful = bytearray(_CACHE_BYTES)
    with ExitStack() as open_sockets:
        recipients, readers = Recipients(), []
        listener = open_sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        for serial in range(count):
            reader = open_sockets.enter_context(socket.create_connection(listener.getsockname()))
            reader.setblocking(False)
            readers.append(reader)
            near = open_sockets.enter_context(listener.accept()[0])
            near.setblocking(False)
            recipients.add(client_on(serial, PlainStream(near)))
        for number in range(broadcasts):
            for deflate in (False, True) if number % 2 else (True, False):
                forgetful[::64] = bytes(len(forgetful) // 64)
                costs[deflate].append(await _broadcast(recipients, status_message(payload), deflate=deflate))
                for reader in readers:
                    with suppress(BlockingIOError):
                        while reader.recv(1 << 20):
                            pass
            await trio.lowlevel.checkpoint()
    return costs[False], costs[True]


async def _broadcast(recipients: Recipients, message: OutgoingMessage, *, deflate: bool) -> float:
    started = time.process_time_ns()
    frame = message.deflated if deflate else message.frame
    await fanout.broadcast(DirectWrites(), recipients, [message], frame, must_be_done, NoPauses())
    return (time.process_time_ns() - started) / 1000


class NoPauses(TimeSlice):
    """The broadcast is measured in one go."""

    @property
    def over(self) -> bool:
        return False


if __name__ == "__main__":
    sys.exit(main())
