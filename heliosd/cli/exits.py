"""Exit codes, and errors on standard error."""

from __future__ import annotations

import sys

OK = 0
FAILED = 1
"""Failed while running."""
WRONG = 2
"""The usage or the configuration is wrong."""
INTERRUPTED = 130
"""Ended by Ctrl-C, as shells count it."""


class Usage(Exception):
    """Wrong usage; the text says what is wrong."""


def print_error(message: str) -> None:
    """One line on standard error."""
    print(f"heliosd: {message}", file=sys.stderr)
