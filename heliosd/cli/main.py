"""The command line: the parser, and how a failure is reported.

Exit codes: 0 well, 1 failed, 2 wrong usage or configuration, 3 cannot connect, 4 refused (login or right), 5 the
cluster is not healthy. A failure is reported on standard error, one line for each problem; a traceback means a bug.
`command_table.py` says how a command is added.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from heliosd import __version__
from heliosd.errors import ConfigError, HeliosError

from .command_table import COMMANDS, find
from .environment import use_environment
from .exits import FAILED, INTERRUPTED, WRONG, CommandFailed, Usage, print_error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Raises SystemExit for `--help`, `--version` and wrong usage."""
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            # At the exit of the interpreter a failure would be reported by Python, and with a code of its own.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output is gone.
        _leave_output()
        return FAILED
    except OSError as error:
        _leave_output()
        print_error(str(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(given: list[str]) -> int:
    """The command's exit code. Its errors are reported, but not those of the output."""
    if given and given[0].partition("=")[0] == "--config":
        given.insert(0, "serve")
    chosen = parser_for(given).parse_args(_with_cursor(given))
    try:
        return int(chosen.command(chosen))
    except ConfigError as error:
        for problem in error.problems:
            print_error(f"{chosen.config}: {problem}")
        return WRONG
    except Usage as error:
        print_error(str(error))
        return WRONG
    except CommandFailed as error:
        print_error(str(error))
        return error.exit_code
    except HeliosError as error:
        print_error(str(error))
        return FAILED
    except UnicodeEncodeError as error:
        # Python decodes the bytes of an argument that are not UTF-8 to these (PEP 383).
        if not any("\udc80" <= char <= "\udcff" for char in error.object):
            raise
        print_error(f"not UTF-8: {error.object!r}")
        return WRONG


def _leave_output() -> None:
    """What Python still holds of the output goes nowhere: it would be tried again at the exit."""
    if sys.stdout is not None:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _with_cursor(given: list[str]) -> list[str]:
    """`--since` and its value as one word: an epoch may begin with a dash, which argparse takes for an option."""
    if "--since" not in given[:-1]:
        return given
    at = given.index("--since")
    return [*given[:at], f"--since={given[at + 1]}", *given[at + 2 :]]


def parser_for(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of these arguments: it knows every command by name, and the options of the one that is given."""
    parser = argparse.ArgumentParser(
        prog="heliosd",
        description="Pushes the events of a Raft cluster to people and programs as they happen.",
        epilog="Exit codes: 0 well, 1 failed, 2 wrong usage or configuration, 3 cannot connect, "
        "4 refused (login or right), 5 the cluster is not healthy. "
        "Every option --NAME of a command is also HELIOSD_NAME in the environment.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"heliosd {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen = find(given)
    for entry in COMMANDS:
        made = commands.add_parser(
            entry.name,
            aliases=list(entry.aliases),
            help=entry.summary,
            description=entry.summary,
            allow_abbrev=False,
        )
        if entry is chosen:
            module = entry.load()
            module.add_options(made)
            use_environment(made, os.environ)
            made.set_defaults(command=module.run)
    return parser
