"""Signals that end a command, which is given the time to leave everything tidy."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Collection

import trio

TERMINATED = (signal.SIGTERM, signal.SIGHUP)


async def until_terminated(act: Callable[..., Awaitable[None]], *args: object) -> None:
    """SIGTERM and SIGHUP end the act as Ctrl-C does: raises `KeyboardInterrupt` once it has ended."""
    if await ended_by_signal(TERMINATED, act, *args):
        raise KeyboardInterrupt


async def ended_by_signal(
    signals: Collection[signal.Signals], act: Callable[..., Awaitable[None]], *args: object
) -> bool:
    """Cancel the act at the first of these signals; those that are ignored stay so. Returns whether one came."""
    heeded = [each for each in signals if signal.getsignal(each) is not signal.SIG_IGN]
    if not heeded:
        await act(*args)
        return False
    with trio.open_signal_receiver(*heeded) as received:
        async with trio.open_nursery() as nursery:

            async def end_at_signal() -> None:
                await anext(received)
                nursery.cancel_scope.cancel()

            nursery.start_soon(end_at_signal)
            await act(*args)
            nursery.cancel_scope.cancel()
            return False
    return True
