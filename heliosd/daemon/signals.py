"""The signals of a daemon: SIGTERM, SIGINT and SIGHUP. None ends the process by itself, and none is lost."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager

import trio

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def keep_signals() -> list[int]:
    """Add them to this list from now on, whenever no task receives them: while the daemon is prepared, say.

    To the first process of a container they would not even come."""
    kept: list[int] = []
    for number in _HANDLED:
        signal.signal(number, lambda received, _: kept.append(received))
    return kept


@contextmanager
def received_signals(kept: list[int]) -> Iterator[AsyncIterator[int]]:
    """Those that were kept, which are taken out of the list, and then those that come."""
    with trio.open_signal_receiver(*_HANDLED) as signals:
        yield _after(kept, signals)


async def _after(kept: list[int], signals: AsyncIterator[int]) -> AsyncGenerator[int, None]:
    while kept:
        yield kept.pop(0)
    async for number in signals:
        yield number
