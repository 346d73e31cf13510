"""A full screen in the terminal, redrawn as a whole: it fits the terminal's size, and nothing is wrapped."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from .standard_output import StandardOutput

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""The alternate screen, without a cursor and without wrapping (xterm's private modes)."""
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
REDRAW_SECONDS = 1.0
"""Clocks and countdowns move."""
PAUSE_SECONDS = 0.1
"""Between two drawings, however much happens."""
_STYLE = re.compile("(\x1b\\[[0-9;]*m)")

Draw = Callable[[int, int], Sequence[str]]
"""The lines for a width and a height."""


class Screen:
    """Draws what `draw` returns: once a second, when the window changes its size, and soon after `changed`."""

    def __init__(self, output: StandardOutput, draw: Draw) -> None:
        self._output = output
        self._draw = draw
        self._dirty = trio.Event()

    def changed(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Draw until cancelled."""
        while True:
            self._dirty = trio.Event()
            size = os.get_terminal_size(self._output.fd)
            # A serial line does not know its size.
            width, height = size.columns or 80, size.lines or 24
            lines = [shortened(line, width) for line in self._draw(width, height)][:height]
            await self._output.write("\x1b[H" + "\r\n".join(f"\x1b[2K{line}" for line in lines) + "\x1b[J")
            await trio.sleep(PAUSE_SECONDS)
            with trio.move_on_after(REDRAW_SECONDS):
                await self._dirty.wait()

    async def follow_size(self) -> None:
        """Redraw when the window changes its size; until cancelled."""
        with trio.open_signal_receiver(signal.SIGWINCH) as signals:
            async for _ in signals:
                self.changed()


@asynccontextmanager
async def open_screen(output: StandardOutput, draw: Draw) -> AsyncIterator[Screen]:
    """The terminal is the screen's for as long as the block lasts; then it is as it was before."""
    await output.write(ENTER)
    screen = Screen(output, draw)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.run)
            nursery.start_soon(screen.follow_size)
            try:
                yield screen
            finally:
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(PAUSE_SECONDS):
            await output.write(LEAVE)


def shortened(line: str, width: int) -> str:
    """The line in at most `width` columns; `…` shows where it was cut. Styles take no column."""
    if len(line) <= width or len(_STYLE.sub("", line)) <= width:
        return line
    shown, left = "", max(0, width - 1)
    for part in _STYLE.split(line):
        if part.startswith("\x1b"):
            shown += part
        elif left:
            shown += part[:left]
            left -= len(part[:left])
            if not left:
                shown += "…"
    return shown


def spread(left: str, right: str, width: int) -> str:
    """One text at each end of a line; the left one is cut."""
    left = shortened(left, max(0, width - len(right) - 2))
    return f"{left}{' ' * max(0, width - len(left) - len(right))}{right}"
