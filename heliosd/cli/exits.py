"""How a command ends."""

from __future__ import annotations

import sys

OK = 0
FAILED = 1
"""It failed while running."""
WRONG = 2
"""The usage or the configuration is wrong."""
INTERRUPTED = 130
"""Ended by Ctrl-C, as shells count it."""


class Usage(Exception):
    """The command was used wrongly; the text says how."""


def print_error(message: str) -> None:
    """One line on standard error."""
    print(f"heliosd: {message}", file=sys.stderr)
