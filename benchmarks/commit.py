"""What it costs to have an event on disk before it is sent: `python -m benchmarks.commit`."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import trio

from heliosd.store.changes import Change, EventsLogged, LoggedEvent
from heliosd.store.store import Store

ROUNDS = 500
GROUP = 50
PAYLOAD = (
    b'{"type":"peer_change","timestamp":"2026-11-23T05:19:10.123456Z","seq":1,"data":{"filler":"%s"}}'
    % (b"x" * 100)
)


def main() -> None:
    """Print the milliseconds of one commit, for a lone event and for a group."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".commit-") as folder:
        store = Store.open(Path(folder))
        try:
            trio.run(_measure, store)
        finally:
            store.close()


async def _measure(store: Store) -> None:
    seq = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for size in (1, GROUP):
            taken = []
            for _ in range(ROUNDS):
                events = tuple(LoggedEvent(seq + n, 0.0, "peer_change", PAYLOAD) for n in range(1, size + 1))
                seq += size
                changes: list[Change] = [EventsLogged(events)]
                began = time.perf_counter()
                await store.save(changes)
                taken.append((time.perf_counter() - began) * 1000)
            p50, p99 = statistics.median(taken), statistics.quantiles(taken, n=100)[98]
            print(f"{size:3} events a commit: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
