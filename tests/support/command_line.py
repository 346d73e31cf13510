"""The command line, called within the test's process: what needs no process of its own costs half a second less."""

from __future__ import annotations

from heliosd.cli.main import main


def exit_code_of(*arguments: str) -> int:
    """Run `heliosd` with these arguments; its output is the test's own."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(str(ended.code))
