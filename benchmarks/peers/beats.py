"""What the Python hubs here share: their command line, their message, and when it is due.

Both are given an interval in milliseconds and a length, bind a free port of the loopback and print it on standard
error. From the first byte on that comes through BENCH_BEATS, each such byte is a beat and the clock is none.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import Callable
from datetime import UTC, datetime

MAX_BEATS = 64


def message(size: int) -> bytes:
    """A status message of `size` bytes with the time of day in it, made anew as a real one is."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    fixed = f'{{"type":"status_update","timestamp":"{stamp}","data":{{"padding":""}}}}'
    return f'{fixed[:-3]}{"x" * (size - len(fixed))}"}}}}'.encode()


async def keep(tick: Callable[[], None], interval: float) -> None:
    """Call `tick` for ever: every `interval` seconds until the first byte comes, then once for each byte."""
    loop = asyncio.get_running_loop()
    driven = asyncio.Event()
    descriptor = os.environ.get("BENCH_BEATS")

    def take(fd: int) -> None:
        driven.set()
        due = os.read(fd, MAX_BEATS)
        if not due:
            loop.remove_reader(fd)
        for _ in due:
            tick()

    if descriptor is not None:
        os.set_blocking(int(descriptor), False)
        loop.add_reader(int(descriptor), take, int(descriptor))
    due = loop.time()
    while not driven.is_set():
        due += interval
        await asyncio.sleep(due - loop.time())
        if not driven.is_set():
            tick()
    await loop.create_future()


def arguments() -> tuple[float, int]:
    """(interval in seconds, bytes of a message) from the command line; this process may then hold many sockets."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return float(sys.argv[1]) / 1000, int(sys.argv[2])


def print_ready(address: tuple[str, int]) -> None:
    print(
        json.dumps({"event": "ready", "address": "{}:{}".format(*address[:2])}, separators=(",", ":")),
        file=sys.stderr,
        flush=True,
    )
