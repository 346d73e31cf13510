"""The command line, called within the test's process: what needs no process of its own costs half a second less."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from unittest.mock import patch

from heliosd.cli.main import main


def exit_code_of(*arguments: str) -> int:
    """Run `heliosd` with these arguments; its output is the test's own."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(str(ended.code))


def printed_by(*arguments: str, **environment: str) -> str:
    """What `heliosd` prints with these arguments; it must succeed."""
    with redirect_stdout(io.StringIO()) as printed, patch.dict(os.environ, environment):
        assert exit_code_of(*arguments) == 0
    return printed.getvalue()
