"""The command line: the parser, and how a failure is reported.

Exit codes: 0 ok, 1 failed while running, 2 wrong usage or configuration. A failure is reported on standard error,
one line for each problem; a traceback means a bug.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from heliosd import __version__
from heliosd.config.values import MAX_SECONDS, InvalidValue, duration
from heliosd.errors import ConfigError, HeliosError

from . import check_config, hash_password, options, serve, token
from .exits import FAILED, INTERRUPTED, WRONG, Usage, print_error

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Raises SystemExit for `--help`, `--version` and wrong usage."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0].partition("=")[0] == "--config":
        given.insert(0, "serve")
    chosen = _parser().parse_args(_with_cursor(given))
    command: Command = chosen.command
    try:
        return command(chosen)
    except ConfigError as error:
        for problem in error.problems:
            print_error(f"{chosen.config}: {problem}")
        return WRONG
    except Usage as error:
        print_error(str(error))
        return WRONG
    except HeliosError as error:
        print_error(str(error))
        return FAILED
    except BrokenPipeError:
        # The reader of our output is gone. Without this Python reports it again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _with_cursor(given: list[str]) -> list[str]:
    """`--since` and its value as one word: an epoch may begin with a dash, which argparse takes for an option."""
    if "--since" not in given[:-1]:
        return given
    at = given.index("--since")
    return [*given[:at], f"--since={given[at + 1]}", *given[at + 2 :]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="heliosd",
        description="Pushes the events of a Raft cluster to people and programs as they happen.",
        epilog="Exit codes: 0 ok, 1 failed while running, 2 wrong usage or configuration.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"heliosd {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Command, summary: str, *, config: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        made.set_defaults(command=command)
        if config:
            made.add_argument(
                "--config", type=Path, required=True, metavar="FILE", help="the configuration (TOML)"
            )
        return made

    add("serve", serve.run, "Run the daemon; `heliosd --config FILE` is the same.")
    check = add(
        "check-config",
        check_config.run,
        "Check a configuration file and print every problem with its key and line.",
        config=False,
    )
    which = check.add_mutually_exclusive_group(required=True)
    which.add_argument("file", type=Path, nargs="?", metavar="FILE", help="the configuration (TOML)")
    which.add_argument("--config", type=Path, metavar="FILE", help="the same")
    add(
        "hash-password",
        hash_password.run,
        "Read a password from standard input, or ask for it; print its hash for the configuration file.",
        config=False,
    )
    issue = add("token", token.run, "Print a signed token for a configured user.")
    issue.add_argument("--user", required=True, metavar="NAME")
    issue.add_argument(
        "--ttl", type=_ttl, metavar="DURATION", help='such as "15m" or "365d"; default: auth.token_ttl'
    )
    watch = add("watch", _watch, "Show what happens in the cluster, live, until Ctrl-C.", config=False)
    options.add_watch(watch)
    options.add_target(watch)
    return parser


def _watch(chosen: argparse.Namespace) -> int:
    # Imported here so that the other commands need not wait for it.
    from . import watch  # noqa: PLC0415

    return watch.run(chosen)


def _ttl(text: str) -> float:
    try:
        seconds = float(text) if text.isascii() and text.isdecimal() else duration(text)
    except InvalidValue as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 1 <= seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError("must be from 1 second to 100 years")
    return seconds
