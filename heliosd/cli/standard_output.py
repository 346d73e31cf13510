"""Standard output for a task: each line is written at once, and other tasks are not blocked."""

from __future__ import annotations

import os
import select
import sys

import trio

from .exits import CommandFailed

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


def on_terminal() -> bool:
    """Whether a person reads it."""
    return sys.stdout is not None and sys.stdout.isatty()


def standard_output() -> StandardOutput:
    """Raises `CommandFailed` if there is none."""
    if sys.stdout is None:
        raise CommandFailed("standard output is closed")
    sys.stdout.flush()
    return StandardOutput(sys.stdout.fileno())
