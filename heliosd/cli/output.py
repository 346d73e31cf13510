"""How text goes to standard output: with or without colour, and without what a terminal would obey."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO


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
