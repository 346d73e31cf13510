"""Standard output for a task: each line is written at once, and other tasks are not blocked."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Mapping
from typing import TextIO

import trio

ONE_WRITE = 4096
"""A pipe that is ready takes so much without blocking (PIPE_BUF)."""


class StandardOutput:
    """A file descriptor to write text to, by one task at a time."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    async def write(self, text: str) -> None:
        """Write all of it. A full pipe blocks only this task. Raises `BrokenPipeError` if the reader is gone."""
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            part = data[:ONE_WRITE]
            if select.select([], [self.fd], [], 0)[1]:
                await trio.lowlevel.checkpoint()
                written = os.write(self.fd, part)
            else:
                # The descriptor may be shared with other programs, so it is not made non-blocking. Python's buffer
                # is not used: an abandoned thread that holds its lock would block the exit.
                written = await trio.to_thread.run_sync(os.write, self.fd, part, abandon_on_cancel=True)
            data = data[written:]


def coloured(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to use colour there (https://no-color.org)."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def printable(text: object) -> str:
    """Text of others with control, invisible and direction characters escaped."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in shown
    )


def standard_output() -> StandardOutput:
    sys.stdout.flush()
    return StandardOutput(sys.stdout.fileno())
