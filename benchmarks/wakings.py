"""What wakes a daemon that has nothing to do: which tasks run after each wait of the event loop, and how often.

python -m benchmarks.wakings                  # a minute of the simulated backend
python -m benchmarks.wakings --etcd http://127.0.0.1:2379 --seconds 20
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import trio

from heliosd.daemon.main import prepare
from heliosd.daemon.referenced_files import load_checked

from .footprint import SETTLE_SECONDS, write_config


class Woken(trio.abc.Instrument):
    """Counts the waits that ended, by the tasks that ran then. A task is named for its function."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self._ran: dict[str, None] = {}
        self._waited = False

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self._ran[task.name.removeprefix("heliosd.")] = None

    def before_io_wait(self, timeout: float) -> None:
        if timeout > 0:
            if self._waited:
                self.counts[tuple(self._ran)] += 1
            self._ran, self._waited = {}, True


def table(counts: Counter[tuple[str, ...]], seconds: float) -> Iterator[str]:
    """The rows, the most frequent first."""
    for tasks, count in counts.most_common():
        yield f"{count / seconds:6.2f}/s  {', '.join(tasks) or '(a thread)'}"
    yield f"{counts.total() / seconds:6.2f}/s  in all"


async def watched(config: Path, seconds: float) -> Woken:
    """What woke the daemon in `seconds` after what a start leaves to do."""
    daemon, woken = prepare(config, load_checked(config)), Woken()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run)
            await trio.sleep(SETTLE_SECONDS)
            trio.lowlevel.add_instrument(woken)
            await trio.sleep(seconds)
            trio.lowlevel.remove_instrument(woken)
            nursery.cancel_scope.cancel()
    finally:
        daemon.store.close()
    return woken


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--etcd", nargs="+", default=[], metavar="URL", help="its endpoints")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heliosd-wakings-") as scratch:
        woken = trio.run(watched, write_config(Path(scratch), options.etcd), options.seconds)
    for line in table(woken.counts, options.seconds):
        print(line)


if __name__ == "__main__":
    main()
