"""`heliosd check-config`: every problem of a configuration, one a line."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from heliosd.daemon.referenced_files import load_checked
from heliosd.errors import ConfigError

from .environment import variable
from .exits import OK, WRONG


def add_options(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=variable(os.environ, "CONFIG") is None)
    which.add_argument("file", type=Path, nargs="?", metavar="FILE", help="the configuration (TOML)")
    which.add_argument("--config", type=Path, metavar="FILE", help="the same")


def run(options: argparse.Namespace) -> int:
    file = options.file or options.config
    try:
        load_checked(file)
    except ConfigError as error:
        # The problems are the command's result, so they go to standard output.
        for problem in error.problems:
            print(problem)
        return WRONG
    print(f"{file}: ok")
    return OK
