"""What compression costs: a broadcast to clients that took it beside one to clients that did not, from one daemon.

    python -m benchmarks.compression [--clients 1000] [--seconds 5] [--rounds 3] [--check]

Exit code: 0 when it was measured, 1 when that failed, or with `--check` when a broadcast costs 15 µs more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .measure import LoadFailed, run_load
from .servers import BUILD, HERE, Heliosd, Running, ServerFailed, Task, compile_c

INTERVAL_SECONDS = 0.1
MOST_US = 15.0


@dataclass(frozen=True, slots=True)
class Window:
    """What the daemon did for one kind of clients in one round."""

    cpu_us: float
    """Its CPU time a broadcast, without what it costs when idle."""
    payload_bytes: float
    compressed_share: float


def main() -> int:
    options = _options()
    allowed = sorted(os.sched_getaffinity(0))
    server_cpu, load_cpu = allowed[0], allowed[-1]
    windows: dict[bool, list[Window]] = {False: [], True: []}
    try:
        compile_c(HERE / "load.c", BUILD / "load")
        with tempfile.TemporaryDirectory(prefix="heliosd-bench-") as scratch:
            task = Task(
                interval=INTERVAL_SECONDS,
                message_bytes=0,
                clients=options.clients,
                cpu=server_cpu,
                scratch=Path(scratch),
            )
            with contextmanager(Heliosd().start)(task) as daemon:
                for number in range(options.rounds):
                    # In turn, and each as often first as second: a machine changes its pace.
                    for deflate in (False, True) if number % 2 == 0 else (True, False):
                        windows[deflate].append(_window(daemon, options, load_cpu, deflate=deflate))
    except (ServerFailed, LoadFailed) as failure:
        print(failure, file=sys.stderr)
        return 1
    costs = {deflate: median(window.cpu_us for window in of) for deflate, of in windows.items()}
    for deflate, of in windows.items():
        each = ", ".join(f"{window.cpu_us:.0f}" for window in of)
        print(
            f"{'compressed' if deflate else 'plain':<11}{costs[deflate]:>8.0f} µs a broadcast ({each}), "
            f"{median(window.payload_bytes for window in of):.0f} bytes a message, "
            f"{median(window.compressed_share for window in of):.0%} of them compressed"
        )
    more = costs[True] - costs[False]
    print(f"{options.clients} clients that took compression cost {more:+.0f} µs a broadcast")
    print(f"target: at most {MOST_US:.0f} µs more: {'holds' if more <= MOST_US else 'MISSED'}")
    return 0 if more <= MOST_US or not options.check else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compression", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--clients", type=int, default=1000, help="connections at a time (default 1000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="each window lasts (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default 3)")
    parser.add_argument("--check", action="store_true", help="exit 1 when the target is missed")
    return parser.parse_args()


def _window(daemon: Running, options: argparse.Namespace, cpu: int, *, deflate: bool) -> Window:
    def run(clients: int) -> dict[str, Any]:
        return run_load(
            BUILD / "load", daemon, cpu=cpu, clients=clients, seconds=options.seconds, deflate=deflate
        )

    idle, busy = run(0), run(options.clients)
    broadcasts = busy["deliveries"] / options.clients
    if not broadcasts:
        raise LoadFailed("nothing was sent")
    cpu_seconds = busy["cpu_seconds"] - idle["cpu_seconds"] / idle["seconds"] * busy["seconds"]
    return Window(
        cpu_seconds / broadcasts * 1e6,
        busy["payload_bytes"] / busy["deliveries"],
        busy["compressed"] / busy["deliveries"],
    )


if __name__ == "__main__":
    sys.exit(main())
