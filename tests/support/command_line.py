"""The command line, within the test's process, which costs half a second less, or as one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stdout
from unittest.mock import patch

from heliosd.cli.main import main

from .deadlines import SECONDS


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


def heliosd_process(
    *arguments: str | bytes, shell: str = "", given: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """A process of its own, with redirections as a shell writes them; it must end with this code."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "heliosd", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, done
    return done
