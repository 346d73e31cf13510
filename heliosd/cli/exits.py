"""Exit codes, and errors on standard error."""

from __future__ import annotations

import sys
from contextlib import suppress

OK = 0
FAILED = 1
"""Failed while running."""
WRONG = 2
"""The usage or the configuration is wrong."""
CANNOT_CONNECT = 3
"""No daemon answers."""
REFUSED = 4
"""The login or the right was refused."""
UNHEALTHY = 5
"""The cluster is not healthy, or would not stay so."""
INTERRUPTED = 130
"""Ended by Ctrl-C, as shells count it."""


class Usage(Exception):
    """Wrong usage; the text says what is wrong."""


class CommandFailed(Exception):
    """The command ends with this text on standard error and this exit code."""

    def __init__(self, text: str, exit_code: int = FAILED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def print_error(message: str) -> None:
    """One line on standard error. Where nobody can take it, it is lost and the command goes on."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"heliosd: {message}", file=sys.stderr, flush=True)
